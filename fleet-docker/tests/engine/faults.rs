//! Engines that are away, answers that are lost.

use fleet_core::model::FrozenSpec;
use fleet_core::ports::{ContainerRuntime as _, ImageStore as _, PortErrorKind};
use fleet_docker::{ConnectOptions, DockerEngine};
use fleet_testkit::{Image, Lab, docker, docker_json};

use crate::kit::{candidate, engine, id, image_id};
use crate::proxy::{Mischief, Proxy, engine_over_tcp};

async fn connect(host: &str) -> Result<DockerEngine, PortErrorKind> {
    let options = ConnectOptions {
        host: Some(host.to_owned()),
    };
    DockerEngine::connect(&options)
        .await
        .map_err(|error| error.kind())
}

#[tokio::test]
async fn engine_that_is_away_is_unreachable_and_a_bad_address_is_invalid() {
    let folder = tempfile::tempdir().expect("a folder");
    let stale = folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).expect("bound"));
    for host in [
        format!("unix://{}/none.sock", folder.path().display()),
        format!("unix://{}", stale.display()),
        "tcp://127.0.0.1:1".to_owned(),
    ] {
        assert_eq!(
            connect(&host).await.err(),
            Some(PortErrorKind::Unreachable),
            "{host}"
        );
    }
    assert_eq!(
        connect("ssh://host").await.err(),
        Some(PortErrorKind::Invalid)
    );
}

#[tokio::test]
async fn engine_behind_tcp_is_the_same_engine() {
    let local = engine().await.info().await.expect("info");
    let remote = connect(&engine_over_tcp()).await.expect("connected");
    assert_eq!(remote.info().await.expect("info"), local);
    assert!(remote.host().starts_with("tcp://127.0.0.1:"));
}

/// A container on two networks, and the call that makes its successor.
struct Case {
    lab: Lab,
    frozen: FrozenSpec,
    image: String,
    target: fleet_core::ids::ImageId,
    before: fleet_core::ids::ImageId,
}

impl Case {
    async fn new() -> Self {
        let lab = Lab::new("faults");
        let image = lab.import("app:1", &Image::new("1", ""));
        let newer = lab.import("newer", &Image::new("2", "").change("VOLUME /fresh"));
        let (before, target) = (image_id(&lab, &image), image_id(&lab, &newer));
        let network = lab.network("second", &[]);
        let web = lab.run("web").create(&image);
        docker(&["network", "connect", &network, &web.id]);
        let frozen = engine().await.freeze(&id(&web)).await.expect("frozen");
        Self {
            lab,
            frozen,
            image,
            target,
            before,
        }
    }

    fn name(&self) -> String {
        self.lab.name("c")
    }

    async fn make(
        &self,
        engine: &DockerEngine,
    ) -> Result<fleet_core::ports::Created, PortErrorKind> {
        candidate(
            engine,
            &self.frozen,
            &self.target,
            &self.image,
            &self.name(),
            Vec::new(),
        )
        .await
        .map_err(|error| error.kind())
    }
}

#[tokio::test]
async fn creation_survives_the_loss_of_any_one_call() {
    let case = Case::new().await;
    let honest = engine().await;
    let proxy = Proxy::new(usize::MAX, Mischief::Refuse);
    let through = connect(&proxy.host()).await.expect("connected");
    let connecting = proxy.seen();
    let created = case.make(&through).await.expect("no fault, no failure");
    let calls = proxy.seen() - connecting;
    assert!(calls > 5, "{calls}");
    let remove = async |created: &fleet_core::ports::Created| {
        honest.remove(&created.id).await.expect("removed");
        for volume in &created.new_volumes {
            honest.remove_volume(volume).await.expect("removed");
        }
    };
    remove(&created).await;
    for turn in 0..calls {
        for mischief in [Mischief::Refuse, Mischief::LoseAnswer] {
            let proxy = Proxy::new(connecting + turn, mischief);
            let through = connect(&proxy.host()).await.expect("connected");
            let what = format!("call {turn} of {calls}, {mischief:?}");
            if let Err(kind) = case.make(&through).await {
                assert_eq!(kind, PortErrorKind::Unreachable, "{what}");
            }
            assert_eq!(
                image_id(&case.lab, &case.image),
                case.before,
                "{what}: the tag is not back"
            );
            // The same call again ends where it would have ended.
            let created = case
                .make(&honest)
                .await
                .unwrap_or_else(|kind| panic!("{what}: {kind:?}"));
            let raw = docker_json(&["container", "inspect", created.id.as_str()]);
            assert_eq!(raw["Image"], case.target.as_str(), "{what}");
            assert_eq!(
                raw["NetworkSettings"]["Networks"]
                    .as_object()
                    .map(serde_json::Map::len),
                Some(2),
                "{what}"
            );
            assert_eq!(created.new_volumes.len(), 1, "{what}");
            assert_eq!(
                image_id(&case.lab, &case.image),
                case.before,
                "{what}: the tag is not back"
            );
            remove(&created).await;
        }
    }
    assert!(honest.image(&case.image).await.expect("asked").is_some());
}
