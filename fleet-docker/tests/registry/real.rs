//! Against a real registry.

use fleet_core::image::Digest;
use fleet_core::ports::{PortErrorKind, ReleaseSource};
use fleet_docker::registry::{HostOptions, Login, RegistryOptions, Secret};

use crate::server::{Demand, PASSWORD, Registry, USER};
use crate::support::{
    Image, amd64, attestation_entry, client, index, index_of, options, platform, reference,
};

#[tokio::test]
async fn digest_release_and_tags_come_from_a_plain_registry() {
    let registry = Registry::start(Demand::Nothing).await;
    let one = Image::new("amd64", "1");
    registry.push("team/app", Some("1"), &one).await;
    registry.push("team/app", Some("latest"), &one).await;
    let client = client(options());
    let image = reference(&registry.name, "team/app:1");

    assert_eq!(client.digest(&image).await.unwrap(), one.digest());
    let release = client.resolve(&image, &amd64()).await.unwrap();
    assert_eq!(release.image, image.pinned(one.digest()));
    assert_eq!(release.platform_digest, one.digest());
    assert_eq!(release.config_digest, Some(one.config_digest.clone()));
    assert_eq!(release.size_bytes, 1);
    assert_eq!(release.annotations["org.opencontainers.image.version"], "1");
    let mut tags = client.tags(&image).await.unwrap();
    tags.sort();
    assert_eq!(tags, ["1", "latest"]);

    let by_digest = reference(&registry.name, &format!("team/app@{}", one.digest()));
    let release = client.resolve(&by_digest, &amd64()).await.unwrap();
    assert_eq!(release.platform_digest, one.digest());
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let registry = Registry::start(Demand::Nothing).await;
    registry
        .push("app", Some("1"), &Image::new("amd64", "1"))
        .await;
    let client = client(options());
    let gone = format!("app@{}", Digest::of(b"never pushed"));
    for missing in ["app:2", "other:1", &gone] {
        let image = reference(&registry.name, missing);
        let error = client.resolve(&image, &amd64()).await.unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::NotFound, "{missing}: {error}");
    }
    let app = reference(&registry.name, "app:1");
    let error = client.resolve(&app, &platform("arm64")).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::NotFound);
    assert!(error.to_string().contains("linux/arm64"), "{error}");
}

#[tokio::test]
async fn an_index_is_resolved_for_the_platform_and_attestations_are_skipped() {
    let registry = Registry::start(Demand::Nothing).await;
    let (amd, arm) = (Image::new("amd64", "1"), Image::new("arm64", "1"));
    let proof = Image::new("unknown", "provenance");
    let plain = index(&[&amd, &arm]);
    registry.push_index("app", "1", &[&amd, &arm], &plain).await;
    let client = client(options());
    let image = reference(&registry.name, "app:1");

    let release = client.resolve(&image, &platform("arm64")).await.unwrap();
    assert_eq!(release.image.digest, Digest::of(&plain));
    assert_eq!(release.platform_digest, arm.digest());
    assert_eq!(release.config_digest, Some(arm.config_digest.clone()));

    let attested = index_of(vec![
        attestation_entry(&proof, &amd),
        amd.entry(),
        arm.entry(),
    ]);
    registry
        .push_index("app", "1", &[&proof, &amd, &arm], &attested)
        .await;
    let after = client.resolve(&image, &amd64()).await.unwrap();
    assert_eq!(
        after.image.digest,
        Digest::of(&attested),
        "the index is another one"
    );
    assert_eq!(
        after.platform_digest,
        amd.digest(),
        "what would run is the same"
    );
}

fn with_host(registry: &Registry, host: HostOptions) -> RegistryOptions {
    RegistryOptions {
        hosts: [(registry.name.clone(), host)].into(),
        ..options()
    }
}

fn login(password: &str) -> Option<Login> {
    Some(Login::Password {
        username: USER.to_owned(),
        password: Secret::Text(password.into()),
    })
}

#[tokio::test]
async fn basic_credentials_open_a_registry_and_wrong_ones_are_denied() {
    let registry = Registry::start(Demand::BasicLogin).await;
    let one = Image::new("amd64", "1");
    registry.push("app", Some("1"), &one).await;
    let image = reference(&registry.name, "app:1");

    let right = client(with_host(
        &registry,
        HostOptions {
            login: login(PASSWORD),
            ..HostOptions::default()
        },
    ));
    assert_eq!(right.digest(&image).await.unwrap(), one.digest());
    right.resolve(&image, &amd64()).await.unwrap();

    for host in [
        HostOptions::default(),
        HostOptions {
            login: login("wrong"),
            ..HostOptions::default()
        },
    ] {
        let error = client(with_host(&registry, host))
            .digest(&image)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Denied, "{error}");
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_only_where_it_is_configured() {
    let registry = Registry::start(Demand::Tls).await;
    let one = Image::new("amd64", "1");
    registry.push("app", Some("1"), &one).await;
    let image = reference(&registry.name, "app:1");

    let trusting = client(with_host(
        &registry,
        HostOptions {
            ca_files: vec![registry.ca.clone().unwrap()],
            ..HostOptions::default()
        },
    ));
    let release = trusting.resolve(&image, &amd64()).await.unwrap();
    assert_eq!(release.platform_digest, one.digest());

    let strict = client(with_host(
        &registry,
        HostOptions {
            plain_http: Some(false),
            ..HostOptions::default()
        },
    ));
    let error = strict.digest(&image).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Unreachable, "{error}");
}
