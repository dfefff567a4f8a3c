//! What an answer must be before it is believed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fleet_core::image::Digest;
use fleet_core::ports::{PortErrorKind, ReleaseSource};
use fleet_docker::registry::{Observer, RegistryOptions};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wiremock::ResponseTemplate;

use crate::mock::{Server, Shelf, header, status};
use crate::support::{
    Image, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, amd64, client, descriptor, index, options,
    reference,
};

async fn serving(shelf: &Shelf) -> Server {
    let shelf = shelf.clone();
    Server::start(move |request| shelf.answer(request)).await
}

#[track_caller]
fn check_kind(error: &fleet_core::ports::PortError, expect: PortErrorKind, what: &str) {
    assert_eq!(error.kind(), expect, "{what}: {error}");
}

#[tokio::test]
async fn every_status_has_its_meaning_and_only_what_may_pass_is_tried_again() {
    for (code, kind, requests) in [
        (400, PortErrorKind::Invalid, 1),
        (401, PortErrorKind::Denied, 1),
        (403, PortErrorKind::Denied, 1),
        (404, PortErrorKind::NotFound, 1),
        (500, PortErrorKind::Failed, 3),
        (502, PortErrorKind::Failed, 3),
        (503, PortErrorKind::Failed, 3),
        (504, PortErrorKind::Timeout, 3),
        (304, PortErrorKind::Corrupt, 1),
    ] {
        let server = Server::start(move |_| status(code)).await;
        let error = client(options())
            .digest(&reference(&server.name, "a:1"))
            .await
            .unwrap_err();
        check_kind(&error, kind, &code.to_string());
        assert_eq!(server.requests().await.len(), requests, "{code}");
    }
}

#[tokio::test]
async fn a_registry_that_recovers_is_asked_until_it_answers() {
    let (shelf, count) = (Shelf::default(), AtomicUsize::new(0));
    let one = Image::new("amd64", "1");
    shelf.put("1", &one);
    let server = Server::start(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => status(502),
        _ => shelf.answer(request),
    })
    .await;
    let digest = client(options())
        .digest(&reference(&server.name, "a:1"))
        .await
        .unwrap();
    assert_eq!(digest, one.digest());
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_no_answer_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap().to_string();
    let patient = client(RegistryOptions {
        request_timeout: std::time::Duration::from_millis(50),
        attempts: 1,
        ..options()
    });
    let error = patient
        .digest(&reference(&silent, "a:1"))
        .await
        .unwrap_err();
    check_kind(&error, PortErrorKind::Timeout, "silent");
    drop(listener);
    let error = client(options())
        .digest(&reference(&silent, "a:1"))
        .await
        .unwrap_err();
    check_kind(&error, PortErrorKind::Unreachable, "gone");
    let error = client(options())
        .digest(&reference("no-such-host.invalid", "a:1"))
        .await;
    check_kind(
        &error.unwrap_err(),
        PortErrorKind::Unreachable,
        "no such name",
    );
}

#[tokio::test]
async fn too_many_requests_hold_the_registry_and_only_that_one() {
    for retry_after in [Some("600"), None] {
        let server = Server::start(move |_| match retry_after {
            Some(secs) => status(429).insert_header("retry-after", secs),
            None => status(429),
        })
        .await;
        let (shelf, client) = (Shelf::default(), client(options()));
        shelf.put("1", &Image::new("amd64", "1"));
        let other = serving(&shelf).await;
        for _ in 0..3 {
            let error = client
                .digest(&reference(&server.name, "a:1"))
                .await
                .unwrap_err();
            let PortErrorKind::RateLimited { retry_after: wait } = error.kind() else {
                panic!("expected RateLimited, found {error:?}");
            };
            let least = retry_after.map_or(1, |_| 590);
            assert!(wait.unwrap().as_secs() >= least, "{wait:?}");
        }
        assert_eq!(server.requests().await.len(), 1, "the hold is kept");
        client.digest(&reference(&other.name, "a:1")).await.unwrap();
    }
}

#[tokio::test]
async fn a_short_hold_is_waited_for_within_the_call() {
    let (shelf, count) = (Shelf::default(), AtomicUsize::new(0));
    shelf.put("1", &Image::new("amd64", "1"));
    let server = Server::start(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 => status(429).insert_header("retry-after", "0"),
        _ => shelf.answer(request),
    })
    .await;
    client(options())
        .digest(&reference(&server.name, "a:1"))
        .await
        .unwrap();
    assert_eq!(server.requests().await.len(), 2);
}

#[tokio::test]
async fn the_observer_sees_each_answer_and_what_is_left_of_the_limit() {
    let server =
        Server::start(|_| status(404).insert_header("ratelimit-remaining", "76;w=21600")).await;
    let seen: Arc<Mutex<Vec<_>>> = Arc::default();
    let observer = Observer::new({
        let seen = Arc::clone(&seen);
        move |answer| {
            let row = (answer.registry.to_owned(), answer.status, answer.remaining);
            seen.lock().unwrap().push(row);
        }
    });
    let client = client(RegistryOptions {
        observer: Some(observer),
        ..options()
    });
    client
        .digest(&reference(&server.name, "a:1"))
        .await
        .unwrap_err();
    assert_eq!(
        *seen.lock().unwrap(),
        [(server.name.clone(), Some(404), Some(76))]
    );
}

#[tokio::test]
async fn all_four_types_are_asked_for_and_head_comes_first() {
    let shelf = Shelf::default();
    let one = Image::new("amd64", "1");
    shelf.put_index("1", &[&one], &index(&[&one]));
    let server = serving(&shelf).await;
    client(options())
        .resolve(&reference(&server.name, "a:1"), &amd64())
        .await
        .unwrap();
    let requests = server.requests().await;
    assert_eq!(requests[0].method.as_str(), "HEAD");
    for request in requests
        .iter()
        .filter(|r| r.url.path().contains("/manifests/"))
    {
        let accept = header(request, "accept").unwrap();
        for media_type in [
            OCI_INDEX,
            OCI_MANIFEST,
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        ] {
            assert!(accept.split(", ").any(|one| one == media_type), "{accept}");
        }
    }
}

#[tokio::test]
async fn where_head_tells_nothing_the_bytes_are_read_and_hashed() {
    let one = Image::new("amd64", "1");
    for head in [
        status(200),
        status(200).insert_header("docker-content-digest", "sha512:abcd"),
        status(405),
        status(501),
    ] {
        let manifest = one.manifest.clone();
        let server = Server::start(move |request| match request.method.as_str() {
            "HEAD" => head.clone(),
            _ => status(200).set_body_raw(manifest.clone(), OCI_MANIFEST),
        })
        .await;
        let digest = client(options())
            .digest(&reference(&server.name, "a:1"))
            .await
            .unwrap();
        assert_eq!(digest, one.digest());
    }
}

#[tokio::test]
async fn bytes_with_another_digest_are_refused() {
    let (one, two) = (Image::new("amd64", "1"), Image::new("amd64", "2"));
    let named = |image: &Image, digest: &Digest| {
        status(200)
            .set_body_raw(image.manifest.clone(), OCI_MANIFEST)
            .insert_header("docker-content-digest", digest.as_str())
    };
    // The header lies about the bytes; the bytes are not those that were asked for; and both together.
    let by_tag = named(&two, &one.digest());
    let honest_other = named(&two, &two.digest());
    for (answer, rest) in [
        (by_tag.clone(), "a:1".to_owned()),
        (by_tag, format!("a@{}", one.digest())),
        (honest_other, format!("a@{}", one.digest())),
    ] {
        let server = Server::start(move |_| answer.clone()).await;
        let error = client(options())
            .resolve(&reference(&server.name, &rest), &amd64())
            .await;
        let error = error.unwrap_err();
        check_kind(&error, PortErrorKind::Corrupt, &rest);
        let text = error.to_string();
        assert!(
            text.contains("found bytes with digest") && !text.contains("config"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_config_with_another_digest_is_refused() {
    let (shelf, one) = (Shelf::default(), Image::new("amd64", "1"));
    shelf.put("1", &one);
    let server = Server::start(
        move |request| match request.url.path().contains("/blobs/") {
            true => status(200).set_body_string("{\"os\":\"linux\",\"architecture\":\"amd64\"}"),
            false => shelf.answer(request),
        },
    )
    .await;
    let error = client(options())
        .resolve(&reference(&server.name, "a:1"), &amd64())
        .await;
    check_kind(&error.unwrap_err(), PortErrorKind::Corrupt, "config");
}

fn manifest_json() -> Value {
    serde_json::from_slice(&Image::new("amd64", "1").manifest).unwrap()
}

fn index_json() -> Value {
    serde_json::from_slice(&index(&[&Image::new("amd64", "1")])).unwrap()
}

fn changed(mut value: Value, key: &str, to: Value) -> Value {
    value[key] = to;
    value
}

#[tokio::test]
async fn a_document_that_could_be_two_things_is_refused() {
    let both = changed(
        manifest_json(),
        "manifests",
        index_json()["manifests"].clone(),
    );
    let schema_1 = json!({"schemaVersion": 1, "fsLayers": [], "history": []});
    let chart = {
        let config = json!({"mediaType": "application/vnd.cncf.helm.config.v1+json",
            "digest": Digest::of(b"x").as_str(), "size": 1});
        changed(manifest_json(), "config", config)
    };
    let docker_manifest = "application/vnd.docker.distribution.manifest.v2+json";
    let corrupt = PortErrorKind::Corrupt;
    let unsupported = PortErrorKind::Unsupported;
    for (what, media_type, body, kind) in [
        ("index called manifest", OCI_MANIFEST, index_json(), corrupt),
        ("manifest called index", OCI_INDEX, manifest_json(), corrupt),
        ("both at once", OCI_MANIFEST, both.clone(), corrupt),
        ("both at once, as index", OCI_INDEX, both, corrupt),
        (
            "neither",
            OCI_MANIFEST,
            json!({"schemaVersion": 2}),
            corrupt,
        ),
        (
            "the document says index",
            OCI_MANIFEST,
            changed(manifest_json(), "mediaType", json!(OCI_INDEX)),
            corrupt,
        ),
        (
            "OCI document, Docker header",
            docker_manifest,
            manifest_json(),
            corrupt,
        ),
        ("a list", OCI_MANIFEST, json!([]), corrupt),
        (
            "schema 1",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            schema_1.clone(),
            unsupported,
        ),
        (
            "schema 1, vaguely",
            "application/json",
            schema_1,
            unsupported,
        ),
        ("a web page", "text/html", manifest_json(), unsupported),
        ("a chart", OCI_MANIFEST, chart, unsupported),
    ] {
        let bytes = body.to_string().into_bytes();
        let server =
            Server::start(move |_| status(200).set_body_raw(bytes.clone(), media_type)).await;
        let error = client(options())
            .resolve(&reference(&server.name, "a:1"), &amd64())
            .await;
        check_kind(&error.unwrap_err(), kind, what);
    }
}

#[tokio::test]
async fn vague_types_are_believed_where_the_document_leaves_no_doubt() {
    for media_type in ["application/json", "application/octet-stream"] {
        let (shelf, one) = (Shelf::default(), Image::new("amd64", "1"));
        shelf.put("1", &one);
        shelf.put_document(media_type, &one.manifest);
        let server = serving(&shelf).await;
        client(options())
            .resolve(&reference(&server.name, "a:1"), &amd64())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn an_index_within_an_index_is_refused() {
    let (shelf, one) = (Shelf::default(), Image::new("amd64", "1"));
    let inner = index(&[&one]);
    let mut entry = descriptor(OCI_MANIFEST, &inner);
    entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let outer = crate::support::index_of(vec![entry]);
    shelf.put_index("1", &[&one], &outer);
    shelf.put_document(OCI_INDEX, &inner);
    let server = serving(&shelf).await;
    let error = client(options())
        .resolve(&reference(&server.name, "a:1"), &amd64())
        .await;
    check_kind(
        &error.unwrap_err(),
        PortErrorKind::Corrupt,
        "index in index",
    );
}

#[tokio::test]
async fn large_and_endless_bodies_are_cut_off() {
    let large = vec![b' '; 5 * 1024 * 1024];
    let server = Server::start(move |request| match request.method.as_str() {
        "HEAD" => status(200),
        _ => status(200).set_body_raw(large.clone(), OCI_MANIFEST),
    })
    .await;
    let error = client(options())
        .digest(&reference(&server.name, "a:1"))
        .await
        .unwrap_err();
    check_kind(&error, PortErrorKind::Corrupt, "large");

    let endless = endless_server().await;
    let error = client(options())
        .digest(&reference(&endless, "a:1"))
        .await
        .unwrap_err();
    check_kind(&error, PortErrorKind::Corrupt, "endless");
    let error = client(options())
        .tags(&reference(&endless, "a:1"))
        .await
        .unwrap_err();
    check_kind(&error, PortErrorKind::Corrupt, "endless tags");
}

/// A server whose bodies have no end. It lives as long as the test's runtime.
async fn endless_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let read = socket.read(&mut request).await.unwrap_or(0);
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
                if request[..read].starts_with(b"HEAD") {
                    let _ = socket.write_all(format!("{head}\r\n").as_bytes()).await;
                    return;
                }
                let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
                let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
                let mut sent = socket.write_all(chunked.as_bytes()).await;
                while sent.is_ok() {
                    sent = socket.write_all(chunk.as_bytes()).await;
                }
            });
        }
    });
    name
}

/// A registry whose tag points to another version from the `moves_at`-th request on.
async fn moving(versions: [&Image; 2], moves_at: usize, deletes: bool) -> Server {
    let (before, after) = (Shelf::default(), Shelf::default());
    before.put("1", versions[0]);
    if !deletes {
        after.put("old", versions[0]);
    }
    after.put("1", versions[1]);
    let count = AtomicUsize::new(0);
    Server::start(move |request| {
        if count.fetch_add(1, Ordering::SeqCst) < moves_at {
            before.answer(request)
        } else {
            after.answer(request)
        }
    })
    .await
}

#[tokio::test]
async fn a_tag_that_moves_between_any_two_requests_never_mixes_two_releases() {
    let (one, two) = (Image::new("amd64", "1"), Image::new("amd64", "2"));
    for deletes in [false, true] {
        for moves_at in 0..6 {
            let server = moving([&one, &two], moves_at, deletes).await;
            let client = client(options());
            let release = client
                .resolve(&reference(&server.name, "a:1"), &amd64())
                .await
                .unwrap();
            let image = [&one, &two]
                .into_iter()
                .find(|image| image.digest() == release.image.digest)
                .expect("the release is one of the two");
            assert_eq!(release.platform_digest, image.digest());
            assert_eq!(release.config_digest, Some(image.config_digest.clone()));
            let moved = image.digest() == two.digest();
            assert!(
                !moved || moves_at < 3,
                "moved at {moves_at}, deletes: {deletes}"
            );
        }
    }
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_request() {
    let shelf = Shelf::default();
    shelf.put("1", &Image::new("amd64", "1"));
    let server = serving(&shelf).await;
    let client = client(options());
    let image = reference(&server.name, "a:1");
    let answers = join_all((0..500).map(|_| client.digest(&image))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(server.requests().await.len(), 1);
    let platform = amd64();
    let answers = join_all((0..500).map(|_| client.resolve(&image, &platform))).await;
    assert!(answers.iter().all(Result::is_ok));
    let asked = server.asked().await;
    assert_eq!(
        asked.len(),
        4,
        "one HEAD, one manifest, one config: {asked:?}"
    );
}

#[tokio::test]
async fn an_error_is_shared_by_those_who_waited_for_it_and_not_remembered() {
    let server = Server::start(|_| status(404)).await;
    let client = client(options());
    let image = reference(&server.name, "a:1");
    let answers = join_all((0..50).map(|_| client.digest(&image))).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().is_err_and(|e| e.is_not_found()))
    );
    assert_eq!(server.requests().await.len(), 1);
    client.digest(&image).await.unwrap_err();
    assert_eq!(server.requests().await.len(), 2);
}

#[tokio::test]
async fn answers_are_good_for_a_cycle_and_a_resolve_is_always_fresh() {
    let (shelf, one, two) = (
        Shelf::default(),
        Image::new("amd64", "1"),
        Image::new("amd64", "2"),
    );
    shelf.put("1", &one);
    let server = serving(&shelf).await;
    let client = client(options());
    let image = reference(&server.name, "a:1");
    client.digest(&image).await.unwrap();
    shelf.put("1", &two);
    assert_eq!(
        client.digest(&image).await.unwrap(),
        one.digest(),
        "the same cycle"
    );
    client.begin_cycle();
    assert_eq!(client.digest(&image).await.unwrap(), two.digest());
    shelf.put("1", &one);
    let release = client.resolve(&image, &amd64()).await.unwrap();
    assert_eq!(release.image.digest, one.digest());
    assert_eq!(client.digest(&image).await.unwrap(), one.digest());
}

fn page(tags: &[&str], link: Option<&str>) -> ResponseTemplate {
    let answer = status(200).set_body_json(json!({"name": "a", "tags": tags}));
    match link {
        Some(link) => answer.insert_header("link", link),
        None => answer,
    }
}

#[tokio::test]
async fn tags_come_in_pages_from_the_registry_itself() {
    let server = Server::start(|request| match request.url.query() {
        Some("n=1000") => page(&["1"], Some("</v2/a/tags/list?last=1>; rel=\"next\"")),
        Some("last=1") => page(&["2"], Some("<http://evil.example/v2/>; rel=\"next\"")),
        _ => status(500),
    })
    .await;
    let tags = client(options())
        .tags(&reference(&server.name, "a:1"))
        .await
        .unwrap();
    assert_eq!(tags, ["1", "2"]);

    let circle = Server::start(|_| page(&["1"], Some("</v2/a/tags/list?x>; rel=\"next\""))).await;
    let error = client(options())
        .tags(&reference(&circle.name, "a:1"))
        .await
        .unwrap_err();
    check_kind(&error, PortErrorKind::Corrupt, "circle");
    let none =
        Server::start(|_| status(200).set_body_json(json!({"name": "a", "tags": null}))).await;
    let tags = client(options())
        .tags(&reference(&none.name, "a:1"))
        .await
        .unwrap();
    assert!(tags.is_empty());
}

#[tokio::test]
async fn docker_types_are_read_as_well() {
    let (shelf, one) = (Shelf::default(), Image::new("amd64", "1"));
    let mut manifest: Value = serde_json::from_slice(&one.manifest).unwrap();
    let docker_manifest = "application/vnd.docker.distribution.manifest.v2+json";
    let docker_list = "application/vnd.docker.distribution.manifest.list.v2+json";
    manifest["mediaType"] = json!(docker_manifest);
    manifest["config"]["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
    let manifest = manifest.to_string().into_bytes();
    let mut entry = descriptor(docker_manifest, &manifest);
    entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let list = json!({"schemaVersion": 2, "mediaType": docker_list, "manifests": [entry]});
    let list = list.to_string().into_bytes();
    shelf.put_document(docker_manifest, &manifest);
    shelf.put_document(docker_list, &list);
    shelf.put_document(OCI_CONFIG, &one.blobs[1]);
    shelf.tag("1", Digest::of(&list).as_str());
    let server = serving(&shelf).await;
    let image = reference(&server.name, "a:1");
    let release = client(options()).resolve(&image, &amd64()).await.unwrap();
    assert_eq!(release.image.digest, Digest::of(&list));
    assert_eq!(release.platform_digest, Digest::of(&manifest));
}
