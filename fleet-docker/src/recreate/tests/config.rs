//! Each field: inherited, overridden, overridden with the old image's own value.

use serde_json::{Value, json};

use super::super::config::merged;
use super::planned;

/// What the container would have for `field` after an update from `old` to `new`.
fn after(field: &str, user: &Value, old: &Value, new: &Value) -> Value {
    let user = json!({ field: user });
    let old = json!({ field: old });
    let new = json!({ field: new });
    let body = planned(&user, &old, &new);
    let merged = merged(body.as_object().expect("an object"), &new);
    merged.get(field).cloned().unwrap_or_default()
}

#[track_caller]
fn check(field: &str, user: Value, old: Value, new: Value, expect: Value) {
    assert_eq!(
        after(field, &user, &old, &new),
        expect,
        "{field}: user {user}, old {old}, new {new}"
    );
}

#[test]
fn what_the_image_said_follows_the_image_and_what_the_user_said_stays() {
    for (field, a, b, mine) in [
        ("User", json!("1000"), json!("2000"), json!("3000")),
        ("WorkingDir", json!("/a"), json!("/b"), json!("/mine")),
        (
            "StopSignal",
            json!("SIGINT"),
            json!("SIGQUIT"),
            json!("SIGUSR1"),
        ),
    ] {
        check(field, json!(""), a.clone(), b.clone(), b.clone());
        check(field, mine.clone(), a.clone(), b.clone(), mine.clone());
        check(field, a.clone(), a.clone(), b.clone(), b.clone());
        check(field, json!(""), a.clone(), Value::Null, Value::Null);
        check(field, mine.clone(), Value::Null, b.clone(), mine);
    }
}

#[test]
fn environment_is_compared_by_key() {
    let old = json!(["PATH=/a", "VERSION=1", "GONE=x"]);
    let new = json!(["PATH=/b", "VERSION=2", "ADDED=y"]);
    check("Env", json!(null), old.clone(), new.clone(), new.clone());
    check(
        "Env",
        json!(["MINE=1", "PATH=/mine"]),
        old.clone(),
        new.clone(),
        json!(["MINE=1", "PATH=/mine", "VERSION=2", "ADDED=y"]),
    );
    check(
        "Env",
        json!(["VERSION=1"]),
        old.clone(),
        new.clone(),
        new.clone(),
    );
    // Values may contain the separator; a key without a value takes the image's away and stays as it is.
    check(
        "Env",
        json!(["A=b=c", "PATH"]),
        old,
        json!(["PATH=/b"]),
        json!(["A=b=c", "PATH"]),
    );
    // Of two entries of one key the last one counts, so both stay.
    check(
        "Env",
        json!(["K=1", "K=2"]),
        json!(["K=2"]),
        json!(["K=3"]),
        json!(["K=1", "K=2"]),
    );
}

#[test]
fn labels_are_compared_one_by_one_and_fleets_own_are_set_anew() {
    let user = json!({ "Labels": { "mine": "1", "both": "old", "io.fleet.update": "upd_before", "io.fleet.nocopy": "[]" } });
    let old = json!({ "Labels": { "version": "1", "both": "old", "gone": "x" } });
    let new = json!({ "Labels": { "version": "2", "both": "new", "io.fleet.kind": "guard" } });
    let labels = &planned(&user, &old, &new)["Labels"];
    assert_eq!(
        labels,
        &json!({ "mine": "1", "io.fleet.kind": "", "io.fleet.update": super::update() })
    );
}

#[test]
fn command_and_entrypoint_go_together() {
    let old = json!({ "Entrypoint": ["/old"], "Cmd": ["serve"] });
    let new = json!({ "Entrypoint": ["/new"], "Cmd": ["run"] });
    let check = |user: Value, entrypoint: Value, cmd: Value| {
        let body = planned(&user, &old, &new);
        let config = merged(body.as_object().expect("an object"), &new);
        let of = |field: &str| config.get(field).cloned().unwrap_or_default();
        assert_eq!((of("Entrypoint"), of("Cmd")), (entrypoint, cmd), "{user}");
    };
    check(json!({}), json!(["/new"]), json!(["run"]));
    check(json!({ "Cmd": ["mine"] }), json!(["/new"]), json!(["mine"]));
    check(json!({ "Cmd": ["serve"] }), json!(["/new"]), json!(["run"]));
    check(
        json!({ "Entrypoint": ["/mine"], "Cmd": ["a"] }),
        json!(["/mine"]),
        json!(["a"]),
    );
    check(
        json!({ "Entrypoint": ["/mine"] }),
        json!(["/mine"]),
        Value::Null,
    );
    // The same entrypoint given by hand made the engine forget the command: it stays forgotten.
    check(
        json!({ "Entrypoint": ["/old"] }),
        json!(["/old"]),
        Value::Null,
    );
    check(
        json!({ "Entrypoint": ["/old"], "Cmd": ["serve"] }),
        json!(["/new"]),
        json!(["run"]),
    );
    check(
        json!({ "Entrypoint": [""], "Cmd": ["/x"] }),
        Value::Null,
        json!(["/x"]),
    );
}

#[test]
fn health_check_is_taken_apart() {
    let old = json!({ "Test": ["CMD", "/old"], "Interval": 1, "Retries": 3 });
    let new = json!({ "Test": ["CMD", "/new"], "Interval": 2, "Timeout": 5 });
    let check =
        |user: Value, expect: Value| check("Healthcheck", user, old.clone(), new.clone(), expect);
    check(Value::Null, new.clone());
    check(
        json!({ "Interval": 9 }),
        json!({ "Test": ["CMD", "/new"], "Interval": 9, "Timeout": 5 }),
    );
    check(
        json!({ "Test": ["NONE"] }),
        json!({ "Test": ["NONE"], "Interval": 2, "Timeout": 5 }),
    );
    check(
        json!({ "StartInterval": 7, "Interval": 1 }),
        json!({ "Test": ["CMD", "/new"], "Interval": 2, "Timeout": 5, "StartInterval": 7 }),
    );
}

#[test]
fn published_ports_stay_exposed() {
    let user = json!({
        "ExposedPorts": { "80/tcp": {}, "9000/tcp": {} },
        "HostConfig": { "PortBindings": { "80/tcp": [{ "HostIp": "", "HostPort": "8080" }] } },
    });
    let old = json!({ "ExposedPorts": { "80/tcp": {}, "81/tcp": {} } });
    let body = planned(&user, &old, &json!({ "ExposedPorts": { "82/tcp": {} } }));
    assert_eq!(
        body["ExposedPorts"],
        json!({ "80/tcp": {}, "9000/tcp": {} })
    );
}

#[test]
fn the_shell_is_named_because_the_engine_does_not_merge_it() {
    let with = |shell: Value| json!({ "Shell": shell });
    let of = |user: Value, new: Value| {
        planned(&with(user), &with(json!(["/a"])), &with(new))["Shell"].clone()
    };
    assert_eq!(of(json!(["/a"]), json!(["/b"])), json!(["/b"]));
    assert_eq!(of(json!(["/mine"]), json!(["/b"])), json!(["/mine"]));
    assert_eq!(of(json!(["/a"]), Value::Null), Value::Null);
}

#[test]
fn everything_else_of_the_config_is_kept() {
    let user = json!({
        "Tty": true, "OpenStdin": true, "StdinOnce": true, "StopTimeout": 7, "Domainname": "example.org",
        "Hostname": "given", "NetworkDisabled": false, "SomethingNew": { "a": 1 },
    });
    let body = planned(&user, &json!({}), &json!({}));
    for (field, value) in user.as_object().expect("an object") {
        assert_eq!(&body[field], value, "{field}");
    }
    assert_eq!(body["Image"], "app:2");
}
