//! Embeds the engine: updates one instance of this machine to an image that the engine has.
//!
//! `cargo run --example embed -- web app:2` (the container `web` carries the labels `fleet.enable=true` and
//! `fleet.source=local`). Journal and snapshots lie in `./fleet-data`.

use std::path::Path;
use std::sync::Arc;

use fleet_core::crash::NoCrashPoints;
use fleet_core::engine::{Fleet, FleetOptions, FleetPorts, UpdateRequest};
use fleet_core::ports::{NoProgress, UpdatePorts};
use fleet_docker::registry::{RegistryClient, RegistryOptions};
use fleet_docker::volume::{LocalSnapshotStore, SnapshotOptions};
use fleet_docker::{ConnectOptions, DockerEngine, SystemClock, SystemEntropy};
use fleet_sqlite::{OpenOptions, SqliteStore};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [instance, image] = args.as_slice() else {
        anyhow::bail!("usage: embed INSTANCE IMAGE")
    };
    let data = Path::new("fleet-data");
    std::fs::create_dir_all(data)?;
    // The binary that embeds the libraries chooses the TLS provider.
    drop(rustls::crypto::ring::default_provider().install_default());

    let docker = Arc::new(DockerEngine::connect(&ConnectOptions::default()).await?);
    let store = Arc::new(SqliteStore::open(
        data.join("fleet.db"),
        OpenOptions::default(),
    )?);
    let update = UpdatePorts {
        runtime: docker.clone(),
        images: docker.clone(),
        snapshots: Arc::new(LocalSnapshotStore::open(
            &data.join("snapshots"),
            SnapshotOptions::default(),
        )?),
        probe: docker,
        journal: store.clone(),
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy),
        crash: Arc::new(NoCrashPoints),
    };
    let releases = Arc::new(RegistryClient::new(RegistryOptions::default())?);
    let ports = FleetPorts {
        update,
        releases,
        events: store.clone(),
        configs: store.clone(),
        settings: store.clone(),
        availability: store,
        verifier: None,
    };
    let fleet = Fleet::new(ports, FleetOptions::default());

    // First what an earlier run left open, then the new update.
    fleet
        .recover(&NoProgress, &|_, verdict| {
            println!("found {}, therefore {}", verdict.found, verdict.therefore)
        })
        .await?;
    let request = UpdateRequest {
        instances: vec![instance.clone()],
        to: image.parse()?,
        timeout: None,
        override_window: false,
        retry: false,
        actor: "embed example".to_owned(),
        rollout: None,
    };
    for report in fleet.update(&request, &NoProgress).await? {
        let outcome = report.outcome.map_or("open", |outcome| outcome.label());
        println!(
            "{}: {outcome} {}",
            report.instance,
            report.reason.unwrap_or_default()
        );
    }
    Ok(())
}
