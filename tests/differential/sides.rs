//! The two engines.

use std::time::Duration;

use fleet_core::ids::ContainerId;
use fleet_core::ports::ContainerRuntime as _;
use fleet_core::testing::{FakeEngine, FakeHost, image, instance};
use fleet_docker::{ConnectOptions, DockerEngine};
use fleet_testkit::{Image, Lab, get, try_docker, wait_for};
use tokio::runtime::Runtime;

use crate::call::{Call, NAMES, Words, show};

/// One engine in one sequence.
pub(crate) trait Side {
    /// Answers a call.
    fn ask(&mut self, call: &Call) -> String;
    /// Shows every container that the sequence made, in the order of their making.
    fn show(&mut self) -> Vec<String>;
}

/// The fake engine.
pub(crate) struct Fake {
    host: FakeHost,
    engine: FakeEngine,
    words: Words,
    slots: Vec<ContainerId>,
}

impl Fake {
    pub(crate) fn new(seed: u64, words: Words) -> Self {
        let host = FakeHost::new(seed);
        for tag in &words.tags[..2] {
            host.load(image(tag));
        }
        let first = instance(&words.names[0])
            .image(&words.tags[0])
            .without_volumes()
            .volume(&words.volume, "/data");
        let id = host.run(first);
        Self {
            engine: host.engine(),
            host,
            words,
            slots: vec![id],
        }
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }
}

impl Side for Fake {
    fn ask(&mut self, call: &Call) -> String {
        let asked = call.ask(&self.engine, &self.words, &mut self.slots);
        self.host.drive(asked).expect("nobody dies here")
    }

    fn show(&mut self) -> Vec<String> {
        let all = self.host.containers();
        let find = |id: &ContainerId| all.iter().find(|container| container.id == *id);
        let shown = self
            .slots
            .iter()
            .map(|id| find(id).map_or("gone".to_owned(), show));
        shown.collect()
    }
}

/// The real engine, with a lab of its own for the images.
pub(crate) struct Real {
    lab: Lab,
    runtime: Runtime,
    engine: DockerEngine,
    tags: [String; 2],
}

/// One sequence on the real engine. What it made is removed when it goes.
pub(crate) struct Sequence<'a> {
    real: &'a Real,
    words: Words,
    slots: Vec<ContainerId>,
}

impl Real {
    pub(crate) fn new() -> Self {
        let lab = Lab::new("diff");
        let tags = ["1", "2"]
            .map(|version| lab.import(&format!("app:{version}"), &Image::new(version, "")));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let options = ConnectOptions::default();
        let engine = runtime
            .block_on(DockerEngine::connect(&options))
            .expect("an engine answers");
        Self {
            lab,
            runtime,
            engine,
            tags,
        }
    }

    pub(crate) fn sequence(&self, seed: u64) -> Sequence<'_> {
        let name = |what: &str| self.lab.name(&format!("{what}-{seed}"));
        let words = Words {
            names: (0..NAMES)
                .map(|number| name(&format!("n{number}")))
                .collect(),
            tags: vec![
                self.tags[0].clone(),
                self.tags[1].clone(),
                format!("{}:later", name("app")),
            ],
            volume: name("data"),
        };
        let first = self
            .lab
            .run(&format!("n0-{seed}"))
            .volume(&words.volume, "/data")
            .options(&["--restart", "always"])
            .start(&words.tags[0]);
        first.wait_up();
        Sequence {
            real: self,
            words,
            slots: vec![ContainerId::new(first.id).expect("the engine gives full ids")],
        }
    }
}

impl Sequence<'_> {
    pub(crate) fn words(&self) -> Words {
        self.words.clone()
    }

    /// Waits until the program of a container that runs answers: before that it has not set up its signals, and a stop
    /// would end it with another code.
    fn wait_up(&self, slot: usize) {
        let inspect = self.real.engine.inspect(&self.slots[slot]);
        let found = self.real.runtime.block_on(inspect);
        let Some(container) = found.expect("the engine answers") else {
            return;
        };
        let addresses = container.networks.iter().flat_map(|net| &net.addresses);
        let Some(address) = addresses.copied().find(|_| container.is_up()) else {
            return;
        };
        wait_for("the program to answer", Duration::from_secs(30), || {
            let answer = get((address, 8080).into(), "/version", Duration::from_secs(2));
            answer.map(drop).map_err(|error| error.to_string())
        });
    }
}

impl Side for Sequence<'_> {
    fn ask(&mut self, call: &Call) -> String {
        let asked = call.ask(&self.real.engine, &self.words, &mut self.slots);
        let answer = self.real.runtime.block_on(asked);
        if let Call::Start(slot) = call {
            self.wait_up(*slot);
        }
        answer
    }

    fn show(&mut self) -> Vec<String> {
        let look = async {
            let mut shown = Vec::new();
            for id in &self.slots {
                let found = self.real.engine.inspect(id).await;
                let found = found.expect("the engine answers");
                shown.push(found.map_or("gone".to_owned(), |one| show(&one)));
            }
            shown
        };
        self.real.runtime.block_on(look)
    }
}

impl Drop for Sequence<'_> {
    fn drop(&mut self) {
        for id in &self.slots {
            // It may be gone already, as the sequence wanted.
            let _ = try_docker(&["rm", "--force", id.as_str()]);
        }
        let _ = try_docker(&["volume", "rm", "--force", &self.words.volume]);
        let _ = try_docker(&["rmi", &self.words.tags[2]]);
    }
}
