//! Those who are compared.

use std::fmt;
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptions,
};
use fleet_testkit::{Fleet, docker, wait_for};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::asker::Asker;
use crate::guard;
use crate::stage::{Place, Stage};

/// Containers that are worked on at the same time.
const AT_ONCE: usize = 5;
/// Pause between two looks at whether the new version answers.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What taking all containers to the new version cost.
#[derive(Debug, Clone)]
pub(crate) struct Cost {
    pub(crate) whole: Duration,
    /// Time without service of each container.
    pub(crate) down: Vec<Duration>,
}

impl Cost {
    fn new(whole: Duration, askers: Vec<Asker>) -> anyhow::Result<Self> {
        let down = askers
            .into_iter()
            .map(Asker::end)
            .collect::<Result<_, _>>()?;
        Ok(Self { whole, down })
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut down = self.down.clone();
        down.sort();
        write!(
            f,
            "{:.2} s; without service {:?} to {:?}, median {:?}",
            self.whole.as_secs_f64(),
            down.first().copied().unwrap_or_default(),
            down.last().copied().unwrap_or_default(),
            down.get(down.len() / 2).copied().unwrap_or_default()
        )
    }
}

/// Works on one engine, with so many containers.
pub(crate) struct Contestant {
    host: String,
    containers: usize,
    runtime: tokio::runtime::Handle,
    docker: Docker,
}

impl Contestant {
    pub(crate) fn new(
        host: &str,
        containers: usize,
        runtime: tokio::runtime::Handle,
    ) -> anyhow::Result<Self> {
        // Whatever has to be built is built now, and not while a clock runs.
        fleet_testkit::fleet_binary();
        let path = host.trim_start_matches("unix://");
        let docker = Docker::connect_with_unix(path, 120, bollard::API_DEFAULT_VERSION)?;
        let docker = runtime.block_on(docker.negotiate_version())?;
        Ok(Self {
            host: host.to_owned(),
            containers,
            runtime,
            docker,
        })
    }

    /// The calls that somebody would make by hand, a guard included.
    pub(crate) fn raw(&self) -> anyhow::Result<Cost> {
        let stage = Stage::new("raw", self.containers)?;
        let old = stage.start_old("none.");
        let askers = stage.ask();
        let begun = Instant::now();
        let all = old.iter().zip(&stage.places).zip(&askers);
        let work = futures::stream::iter(all)
            .map(|((old, place), asker)| self.raw_one(&stage, place, &old.id, asker))
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>();
        self.runtime.block_on(work)?;
        Cost::new(begun.elapsed(), askers)
    }

    async fn raw_one(
        &self,
        stage: &Stage,
        place: &Place,
        old: &str,
        asker: &Asker,
    ) -> anyhow::Result<()> {
        let docker = &self.docker;
        docker.inspect_image(&stage.new).await?;
        let name = |what: &str| stage.lab.name(&format!("{}-{what}", place.name));
        let new = self.create(&name("new"), &stage.new, place, false).await?;
        let guard = self.create(&name("guard"), &stage.old, place, true).await?;
        guard::give_program(docker, &guard).await?;
        docker
            .start_container(&guard, None::<StartContainerOptions>)
            .await?;
        docker
            .stop_container(old, None::<StopContainerOptions>)
            .await?;
        docker
            .start_container(&new, None::<StartContainerOptions>)
            .await?;
        let begun = Instant::now();
        while !asker.is_done() && begun.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let force = RemoveContainerOptionsBuilder::new().force(true).build();
        docker
            .remove_container(old, Some(RemoveContainerOptionsBuilder::new().build()))
            .await?;
        docker.remove_container(&guard, Some(force)).await?;
        Ok(())
    }

    async fn create(
        &self,
        name: &str,
        image: &str,
        place: &Place,
        guard: bool,
    ) -> anyhow::Result<String> {
        let binding = PortBinding {
            host_ip: Some("127.0.0.1".to_owned()),
            host_port: Some(place.port.to_string()),
        };
        let ports = (!guard).then(|| [("8080/tcp".to_owned(), Some(vec![binding]))].into());
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            host_config: Some(HostConfig {
                binds: Some(vec![format!("{}:/data", place.volume)]),
                port_bindings: ports,
                network_mode: guard.then(|| "none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        Ok(self.docker.create_container(Some(options), body).await?.id)
    }

    /// `fleet rollout start`, the binary under test.
    pub(crate) fn fleet(&self) -> anyhow::Result<Cost> {
        let stage = Stage::new("fleet", self.containers)?;
        let prefix = format!("{}.", stage.lab.prefix());
        let fleet = Fleet::new()
            .on(&self.host)
            .configured(&format!("label_prefix = \"{prefix}\"\n"));
        stage.start_old(&prefix);
        let askers = stage.ask();
        let begun = Instant::now();
        let (code, document) = fleet.json(&[
            "rollout",
            "start",
            "--image",
            &stage.new,
            "--strategy",
            "immediate",
            "--max-concurrent",
            &AT_ONCE.to_string(),
            "--abort-on-failures",
            "20",
            "--wait",
        ]);
        let whole = begun.elapsed();
        let committed = document["rollout"]["committed"].as_u64();
        ensure!(
            code == 0 && committed == Some(self.containers as u64),
            "{document}"
        );
        Cost::new(whole, askers)
    }

    /// `docker service update`, as many at the same time as fleet's updates.
    pub(crate) fn swarm(&self) -> anyhow::Result<Cost> {
        let stage = Stage::new("swarm", self.containers)?;
        docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]);
        let _leaves = Leaves;
        for place in &stage.places {
            let publish = format!("mode=host,published={},target=8080", place.port);
            let mount = format!("type=volume,source={},target=/data", place.volume);
            docker(&[
                "service",
                "create",
                "--detach",
                "--quiet",
                "--no-resolve-image",
                "--name",
                &stage.lab.name(&place.name),
                "--publish",
                &publish,
                "--mount",
                &mount,
                "--update-monitor",
                "1s",
                &stage.old,
            ]);
        }
        stage.wait_up();
        let askers = stage.ask();
        let begun = Instant::now();
        let names = stage.places.iter().map(|place| stage.lab.name(&place.name));
        let names: Vec<String> = names.collect();
        let (next, new) = (std::sync::Mutex::new(names.iter()), &stage.new);
        let update = || {
            loop {
                let Some(name) = next.lock().ok().and_then(|mut next| next.next()) else {
                    return anyhow::Ok(());
                };
                let mut command = self.command("docker");
                command.args(["service", "update", "--quiet", "--no-resolve-image"]);
                command.args(["--image", new, name]);
                succeed(&mut command)?;
            }
        };
        let results: Vec<_> = thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(update)).collect();
            workers.into_iter().map(|worker| worker.join()).collect()
        });
        let whole = begun.elapsed();
        for result in results {
            result.map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        let cost = Cost::new(whole, askers);
        for place in &stage.places {
            docker(&["service", "rm", &stage.lab.name(&place.name)]);
        }
        wait_for(
            "the end of the services",
            Duration::from_secs(60),
            || match stage.lab.containers() {
                left if left.is_empty() => Ok(()),
                left => Err(format!("{left:?}")),
            },
        );
        cost
    }

    /// `docker-compose up -d` with another image.
    pub(crate) fn compose(&self) -> anyhow::Result<Cost> {
        let stage = Stage::new("compose", self.containers)?;
        let folder = tempfile::tempdir()?;
        let mut file = String::from("version: \"3.7\"\nservices:\n");
        for place in &stage.places {
            write!(
                file,
                "  {}:\n    image: \"${{IMAGE}}\"\n    ports: [\"127.0.0.1:{}:8080\"]\n    volumes: [\"{}:/data\"]\n",
                place.name, place.port, place.volume
            )?;
        }
        file.push_str("volumes:\n");
        for place in &stage.places {
            writeln!(file, "  {}: {{external: true}}", place.volume)?;
        }
        std::fs::write(folder.path().join("docker-compose.yml"), file)?;
        let compose = |image: &str, args: &[&str]| {
            let mut command = self.command("docker-compose");
            command
                .args(["--project-name", stage.lab.prefix()])
                .args(args)
                .current_dir(folder.path())
                .env("IMAGE", image);
            succeed(&mut command)
        };
        compose(&stage.old, &["up", "-d"])?;
        stage.wait_up();
        let askers = stage.ask();
        let begun = Instant::now();
        compose(&stage.new, &["up", "-d"])?;
        let cost = Cost::new(begun.elapsed(), askers);
        // Not `down`: it fails now and then because the engine has not let go of the network yet.
        compose(&stage.new, &["rm", "--stop", "--force"])?;
        cost
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", &self.host).stdin(Stdio::null());
        command
    }
}

/// Takes the engine out of its swarm, also where something failed.
struct Leaves;

impl Drop for Leaves {
    fn drop(&mut self) {
        // The engine is thrown away afterwards in any case.
        let _ = fleet_testkit::try_docker(&["swarm", "leave", "--force"]);
    }
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().context("the program can be run")?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
