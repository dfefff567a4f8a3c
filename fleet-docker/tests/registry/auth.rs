//! Who gets the credentials, and who does not.

use fleet_core::ports::{PortErrorKind, ReleaseSource};
use fleet_docker::registry::{DockerConfig, HostOptions, Login, RegistryOptions, Secret};
use serde_json::json;
use wiremock::{Request, ResponseTemplate};

use crate::mock::{Server, Shelf, header, status};
use crate::support::{Image, amd64, client, options, reference};

const PASSWORD: &str = "correct horse";
/// `robot:correct horse`
const BASIC: &str = "Basic cm9ib3Q6Y29ycmVjdCBob3JzZQ==";

fn login() -> Option<Login> {
    Some(Login::Password {
        username: "robot".to_owned(),
        password: Secret::Text(PASSWORD.into()),
    })
}

fn with(registry: &str, login: Option<Login>) -> RegistryOptions {
    let host = HostOptions {
        login,
        ..HostOptions::default()
    };
    RegistryOptions {
        hosts: [(registry.to_owned(), host)].into(),
        ..options()
    }
}

/// A registry that answers those with the token only, and sends the others to `realm`.
async fn guarded(shelf: &Shelf, realm: &str) -> Server {
    let shelf = shelf.clone();
    let challenge = format!("Bearer realm=\"{realm}\",service=\"reg.example\",scope=\"whatever\"");
    Server::start(move |request| match header(request, "authorization") {
        Some("Bearer t0ken") => shelf.answer(request),
        _ => status(401).insert_header("www-authenticate", challenge.as_str()),
    })
    .await
}

fn query(request: &Request, name: &str) -> Option<String> {
    request
        .url
        .query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

fn token(body: serde_json::Value) -> ResponseTemplate {
    status(200).set_body_json(body)
}

fn shelf() -> Shelf {
    let shelf = Shelf::default();
    shelf.put("1", &Image::new("amd64", "1"));
    shelf.put("2", &Image::new("amd64", "2"));
    shelf
}

#[tokio::test]
async fn a_token_is_asked_for_once_per_repository_and_then_sent_at_once() {
    for field in ["token", "access_token"] {
        let service =
            Server::start(move |_| token(json!({field: "t0ken", "expires_in": 300}))).await;
        let registry = guarded(&shelf(), &format!("http://{}/auth", service.name)).await;
        let client = client(with(&registry.name, login()));

        client
            .digest(&reference(&registry.name, "team/a:1"))
            .await
            .unwrap();
        client
            .digest(&reference(&registry.name, "team/a:2"))
            .await
            .unwrap();
        client
            .digest(&reference(&registry.name, "team/b:1"))
            .await
            .unwrap();
        let a = "HEAD /v2/team/a/manifests";
        let expect = [format!("{a}/1"), format!("{a}/1"), format!("{a}/2")];
        assert_eq!(registry.asked().await[..3], expect);
        assert_eq!(
            registry.asked().await.len(),
            4,
            "the second repository is asked once"
        );

        let asked = service.requests().await;
        let scopes: Vec<_> = asked.iter().map(|r| query(r, "scope").unwrap()).collect();
        assert_eq!(scopes, ["repository:team/a:pull", "repository:team/b:pull"]);
        for request in &asked {
            assert_eq!(query(request, "service").as_deref(), Some("reg.example"));
            assert_eq!(query(request, "account").as_deref(), Some("robot"));
            assert_eq!(header(request, "authorization"), Some(BASIC));
        }
    }
}

#[tokio::test]
async fn anonymous_callers_get_a_token_too_and_a_dying_token_is_renewed() {
    let service = Server::start(|_| token(json!({"token": "t0ken", "expires_in": 1}))).await;
    let registry = guarded(&shelf(), &format!("http://{}/auth", service.name)).await;
    let client = client(options());
    client
        .digest(&reference(&registry.name, "a:1"))
        .await
        .unwrap();
    client
        .digest(&reference(&registry.name, "a:2"))
        .await
        .unwrap();
    let asked = service.requests().await;
    assert_eq!(asked.len(), 2);
    assert!(
        asked
            .iter()
            .all(|request| header(request, "authorization").is_none())
    );
}

#[tokio::test]
async fn a_token_that_was_revoked_is_renewed_once() {
    let service = Server::start({
        let count = std::sync::atomic::AtomicU32::new(0);
        move |_| {
            let first = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
            token(json!({"token": if first { "revoked" } else { "t0ken" }, "expires_in": 300}))
        }
    })
    .await;
    let registry = guarded(&shelf(), &format!("http://{}/auth", service.name)).await;
    let client = client(options());
    let error = client
        .digest(&reference(&registry.name, "a:1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Denied);
    client
        .digest(&reference(&registry.name, "a:1"))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let service = Server::start(|_| token(json!({"access_token": "t0ken"}))).await;
    let registry = guarded(&shelf(), &format!("http://{}/auth", service.name)).await;
    let login = Login::IdentityToken(Secret::Text("1dentity&=".into()));
    let client = client(with(&registry.name, Some(login)));
    client
        .digest(&reference(&registry.name, "a:1"))
        .await
        .unwrap();
    let asked = service.requests().await;
    assert_eq!(asked[0].method.as_str(), "POST");
    assert!(header(&asked[0], "authorization").is_none());
    let form = String::from_utf8(asked[0].body.clone()).unwrap();
    for part in [
        "grant_type=refresh_token",
        "refresh_token=1dentity%26%3D",
        "service=reg.example",
        "scope=repository%3Aa%3Apull",
    ] {
        assert!(form.split('&').any(|pair| pair == part), "{part} in {form}");
    }
}

#[tokio::test]
async fn dockers_credentials_are_used_for_their_own_registry_only() {
    let service = Server::start(|_| token(json!({"token": "t0ken"}))).await;
    let realm = format!("http://{}/auth", service.name);
    let (mine, other) = (
        guarded(&shelf(), &realm).await,
        guarded(&shelf(), &realm).await,
    );
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let auth = BASIC.strip_prefix("Basic ").unwrap();
    std::fs::write(
        &config,
        json!({"auths": {&mine.name: {"auth": auth}}}).to_string(),
    )
    .unwrap();
    let client = client(RegistryOptions {
        docker_config: DockerConfig::File(config),
        ..options()
    });
    client.digest(&reference(&mine.name, "a:1")).await.unwrap();
    client.digest(&reference(&other.name, "a:1")).await.unwrap();
    let sent: Vec<_> = service
        .requests()
        .await
        .iter()
        .map(|request| header(request, "authorization").map(str::to_owned))
        .collect();
    assert_eq!(sent, [Some(BASIC.to_owned()), None]);
}

#[tokio::test]
async fn a_realm_on_another_host_never_sees_the_credentials() {
    for realm in [
        "https://evil.example/token",
        "http://evil.example/token",
        "https://127.0.0.1.evil.example/token",
        "ftp://127.0.0.1/token",
        "https://user@evil.example/token",
    ] {
        let registry = guarded(&shelf(), realm).await;
        let client = client(with(&registry.name, login()));
        let error = client
            .digest(&reference(&registry.name, "a:1"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Denied, "{realm}: {error}");
        let requests = registry.requests().await;
        assert!(
            requests
                .iter()
                .all(|r| header(r, "authorization").is_none())
        );
    }
}

#[tokio::test]
async fn refused_credentials_are_not_sent_again_at_once() {
    let service = Server::start(|_| status(401)).await;
    let registry = guarded(&shelf(), &format!("http://{}/auth", service.name)).await;
    let bearer = client(with(&registry.name, login()));
    let basic = Server::start(|_| status(401).insert_header("www-authenticate", "Basic")).await;
    let by_basic = client(with(&basic.name, login()));
    for _ in 0..5 {
        let error = bearer
            .digest(&reference(&registry.name, "a:1"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Denied);
        let error = by_basic
            .digest(&reference(&basic.name, "a:1"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Denied);
    }
    assert_eq!(service.requests().await.len(), 1);
    let sent = basic.requests().await;
    let with_password = sent.iter().filter(|r| header(r, "authorization").is_some());
    assert_eq!(with_password.count(), 1);
}

#[tokio::test]
async fn a_redirect_is_followed_without_credentials() {
    let shelf = shelf();
    let elsewhere = Server::start({
        let shelf = shelf.clone();
        move |request| shelf.answer(request)
    })
    .await;
    let target = format!("http://{}", elsewhere.name);
    let registry = Server::start(move |request| match header(request, "authorization") {
        Some(BASIC) => {
            let location = format!("{target}{}", request.url.path());
            status(307).insert_header("location", location.as_str())
        }
        _ => status(401).insert_header("www-authenticate", "Basic realm=\"r\""),
    })
    .await;
    let client = client(with(&registry.name, login()));
    client
        .resolve(&reference(&registry.name, "a:1"), &amd64())
        .await
        .unwrap();
    let arrived = elsewhere.requests().await;
    assert_eq!(arrived.len(), 3, "the tag, the manifest, the config");
    for request in &arrived {
        assert!(header(request, "authorization").is_none());
        assert!(header(request, "cookie").is_none());
        assert!(header(request, "referer").is_none());
    }
}

#[tokio::test]
async fn redirects_end_and_do_not_leave_loopback_without_tls() {
    for (location, kind) in [
        ("/again", PortErrorKind::Failed),
        ("http://evil.example/", PortErrorKind::Denied),
        ("ftp://127.0.0.1/", PortErrorKind::Denied),
    ] {
        let registry =
            Server::start(move |_| status(302).insert_header("location", location)).await;
        let client = client(RegistryOptions {
            attempts: 1,
            ..options()
        });
        let error = client
            .digest(&reference(&registry.name, "a:1"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{location}: {error}");
    }
}

#[tokio::test]
async fn no_secret_is_in_what_is_printed() {
    let service = Server::start(|_| token(json!({"token": "t0ken"}))).await;
    let registry = guarded(&shelf(), &format!("http://{}/auth", service.name)).await;
    let options = with(&registry.name, login());
    let printed = format!("{options:?}");
    let client = client(options);
    client
        .digest(&reference(&registry.name, "a:1"))
        .await
        .unwrap();
    let printed = format!("{printed}{client:?}");
    assert!(printed.contains("robot"), "the options are printed");
    for secret in [PASSWORD, "t0ken", &BASIC[6..]] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
}

#[tokio::test]
async fn strange_answers_of_a_token_service_are_errors() {
    for (answer, kind) in [
        (token(json!({})), PortErrorKind::Corrupt),
        (token(json!({"token": ""})), PortErrorKind::Corrupt),
        (
            status(200).set_body_string("<html>"),
            PortErrorKind::Corrupt,
        ),
        (
            status(200).set_body_bytes(vec![b' '; 300 * 1024]),
            PortErrorKind::Corrupt,
        ),
        (status(403), PortErrorKind::Denied),
        (status(500), PortErrorKind::Failed),
        (
            status(302).insert_header("location", "/x"),
            PortErrorKind::Failed,
        ),
        (token(json!({"token": "a\nb"})), PortErrorKind::Denied),
    ] {
        let service = Server::start(move |_| answer.clone()).await;
        let registry = guarded(&shelf(), &format!("http://{}/auth", service.name)).await;
        let client = client(options());
        let error = client
            .digest(&reference(&registry.name, "a:1"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}
