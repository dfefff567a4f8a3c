//! Somebody takes the published port while nobody holds it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fleet_testkit::{Container, Fleet, Image, Lab, wait_for};
use serde_json::{Value, json};

/// What the engine answers at this moment; a program in between would take too long.
fn ask(path: &str) -> Value {
    let asked = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect("/var/run/docker.sock")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: engine\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = asked().expect("the engine answers");
    let (_, body) = text.split_once("\r\n\r\n").expect("an answer has a body");
    serde_json::from_str(body).expect("the engine answers in JSON")
}

/// Waits for the engine to refuse the start of the new container, and returns at once: the port must be free again
/// before the old one is started, which takes fleet no tenth of a second.
fn wait_for_refusal(web: &Container) {
    let all = ask("/containers/json?all=1");
    let new = all.as_array().expect("a list").iter().find(|entry| {
        let name = entry["Names"][0].as_str().unwrap_or_default();
        entry["Id"] != web.id.as_str() && name.trim_start_matches('/').starts_with(&web.name)
    });
    let id = new.expect("the new one was made before the stop")["Id"].clone();
    let path = format!("/containers/{}/json", id.as_str().expect("an id"));
    let begun = Instant::now();
    while ask(&path)["State"]["Error"]
        .as_str()
        .unwrap_or_default()
        .is_empty()
    {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "nobody was refused"
        );
    }
}

#[test]
fn a_port_taken_between_stop_and_start_leads_back() {
    let lab = Lab::new("port");
    let old = lab.import("app:1", &Image::new("1", ""));
    let new = lab.import("app:2", &Image::new("2", ""));
    let bind = |port: u16| TcpListener::bind(("127.0.0.1", port));
    let port = bind(0).and_then(|free| free.local_addr());
    let port = port.expect("a free port").port();
    let web = lab
        .run("web")
        .managed()
        .volume(&lab.volume("data"), "/data")
        .options(&["--publish", &format!("127.0.0.1:{port}:8080")])
        .options(&["--restart", "always"])
        .start(&old);
    web.wait_up();
    web.put("kept");
    let fleet = Fleet::new();
    let running = fleet
        .command(&["--output", "json", "update", &web.name, "--to", &new])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fleet can be started");
    let taken = wait_for("the port", Duration::from_secs(60), || {
        bind(port).map_err(|error| error.to_string())
    });
    wait_for_refusal(&web);
    drop(taken);
    let output = running.wait_with_output().expect("fleet ends");
    let text = String::from_utf8_lossy(&output.stdout);
    let document: Value = serde_json::from_str(&text).expect("a report");
    let report = &document["updates"][0];
    assert_eq!(
        (output.status.code(), &report["outcome"]),
        (Some(20), &json!("rolled_back")),
        "{report}"
    );
    let now = web.inspect_by_name();
    assert_eq!(now["Id"], web.id.as_str());
    assert_eq!(now["HostConfig"]["RestartPolicy"]["Name"], "always");
    web.wait_up();
    assert_eq!(web.rows(), ["kept"]);
    assert_eq!(lab.containers(), [web.name.clone()]);
    // The release was not at fault: it is not refused the next time.
    let (code, report) = fleet.update(&web.name, &new, &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (0, &json!("committed")),
        "{report}"
    );
}
