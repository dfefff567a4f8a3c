//! For any user, any old and any new image: only what is allowed differs, and the outcome is what the user would have
//! got by asking for the same things of the new image.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::config::merged;
use super::{Planner, container};

/// Few values, so that user and images agree often.
fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

fn words() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        prop::collection::vec(word(), 1..3).prop_map(Value::from)
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), word().prop_map(Value::from)]
}

fn map_of(value: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    prop::collection::btree_map(word(), value, 0..3).prop_map(|map| json!(map))
}

fn env() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(word(), word(), 0..3).prop_map(|map| {
        Value::from(
            map.iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>(),
        )
    })
}

fn healthcheck() -> impl Strategy<Value = Value> {
    (
        words(),
        prop::option::of(1..4i64),
        prop::option::of(1..4i64),
    )
        .prop_map(|(test, interval, retries)| {
            let mut check = Map::new();
            for (name, value) in [
                ("Test", test),
                ("Interval", json!(interval)),
                ("Retries", json!(retries)),
            ] {
                if !value.is_null() {
                    check.insert(name.to_owned(), value);
                }
            }
            if check.is_empty() {
                Value::Null
            } else {
                Value::Object(check)
            }
        })
}

prop_compose! {
    fn config()(
        scalars in (scalar(), scalar(), scalar()),
        env in env(),
        labels in map_of(word().prop_map(Value::from)),
        sets in (map_of(Just(json!({}))), map_of(Just(json!({})))),
        commands in (words(), words()),
        healthcheck in healthcheck(),
    ) -> Value {
        let path = |set: Value| -> Value {
            let fields: Map<String, Value> =
                set.as_object().into_iter().flatten().map(|(key, value)| (format!("/{key}"), value.clone())).collect();
            Value::Object(fields)
        };
        let mut config = json!({
            "User": scalars.0, "WorkingDir": scalars.1, "StopSignal": scalars.2, "Env": env, "Labels": labels,
            "ExposedPorts": sets.0, "Volumes": path(sets.1), "Entrypoint": commands.0, "Cmd": commands.1,
            "Healthcheck": healthcheck,
        });
        config.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        config
    }
}

/// The user's settings less those that say what the old image says anyway: the documented rule.
fn without_equal(user: &Value, old_image: &Value) -> Map<String, Value> {
    let mut kept = user.as_object().cloned().unwrap_or_default();
    for field in ["User", "WorkingDir", "StopSignal"] {
        if user[field] == old_image[field] {
            kept.remove(field);
        }
    }
    for field in ["Labels", "Healthcheck", "ExposedPorts", "Volumes"] {
        if let Some(Value::Object(fields)) = kept.get_mut(field) {
            fields.retain(|name, value| old_image[field].get(name) != Some(value));
        }
    }
    if let Some(Value::Array(entries)) = kept.get_mut("Env") {
        entries.retain(|entry| {
            !old_image["Env"]
                .as_array()
                .is_some_and(|old| old.contains(entry))
        });
    }
    kept
}

proptest! {
    #[test]
    fn nothing_differs_but_what_may(user in config(), old in config(), new in config()) {
        let spec = container(&user, &old);
        prop_assert_eq!(Planner::new(&spec, &new).surprises(), Vec::<String>::new());
        // Made again from the same image nothing may come from an image at all.
        prop_assert_eq!(Planner::new(&spec, &old).surprises(), Vec::<String>::new());
    }

    #[test]
    fn the_user_gets_what_the_same_wishes_would_give(user in config(), old in config(), new in config()) {
        let spec = container(&user, &old);
        let body = Planner::new(&spec, &new).plan().body;
        let found = Value::Object(merged(&body, &new));
        let expect = Value::Object(merged(&without_equal(&user, &old), &new));
        for field in ["User", "WorkingDir", "StopSignal", "ExposedPorts", "Healthcheck"] {
            prop_assert_eq!(&found[field], &expect[field], "{}", field);
        }
        let sorted = |value: &Value| {
            let mut entries: Vec<String> = crate::json::texts(value);
            entries.sort();
            entries
        };
        prop_assert_eq!(sorted(&found["Env"]), sorted(&expect["Env"]));
    }

    #[test]
    fn made_again_from_its_own_image_it_is_the_same(user in config(), old in config()) {
        let spec = container(&user, &old);
        let body = Planner::new(&spec, &old).plan().body;
        let found = Value::Object(merged(&body, &old));
        let before = &spec.inspect["Config"];
        for field in ["User", "WorkingDir", "StopSignal", "ExposedPorts", "Volumes", "Healthcheck", "Entrypoint", "Cmd"] {
            prop_assert_eq!(&found[field], &before[field], "{}", field);
        }
    }
}
