//! Twenty containers with a published port and a volume each, and somebody who asks each of them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use fleet_testkit::{Container, Image, Lab, get, wait_for};

use crate::asker::Asker;

/// Pause between two questions to one container. Twenty of them ask at the same time, each with a connection of its own
/// through the engine's proxy: at 20 ms that took a sixth of two cores, from all who are compared alike.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Images, volumes and ports for a contestant; its containers are its own affair.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) old: String,
    pub(crate) new: String,
    pub(crate) places: Vec<Place>,
}

/// What one container has.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its name, within the lab.
    pub(crate) name: String,
    pub(crate) volume: String,
    pub(crate) port: u16,
}

impl Place {
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

impl Stage {
    pub(crate) fn new(topic: &str, containers: usize) -> anyhow::Result<Self> {
        let lab = Lab::new(topic);
        let old = lab.import("app:1", &Image::new("1", ""));
        let new = lab.import("app:2", &Image::new("2", ""));
        // Bound until all are known, so that no two are the same.
        let bound: Vec<_> = (0..containers)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<Result<_, _>>()?;
        let mut places = Vec::new();
        for (number, listener) in (1..).zip(&bound) {
            let name = format!("s{number:02}");
            places.push(Place {
                volume: lab.volume(&name),
                name,
                port: listener.local_addr()?.port(),
            });
        }
        Ok(Self {
            lab,
            old,
            new,
            places,
        })
    }

    /// Starts the old version as plain containers. Labels with this prefix make them instances of fleet.
    pub(crate) fn start_old(&self, prefix: &str) -> Vec<Container> {
        let start = |place: &Place| {
            let publish = format!("127.0.0.1:{}:8080", place.port);
            let run = self.lab.run(&place.name).managed_under(prefix);
            run.label(&format!("{prefix}mode"), "auto")
                .options(&["--publish", &publish])
                .volume(&place.volume, "/data")
                .start(&self.old)
        };
        let containers = self.places.iter().map(start).collect();
        self.wait_up();
        containers
    }

    /// Waits until every old container answers.
    pub(crate) fn wait_up(&self) {
        for place in &self.places {
            wait_for("the old version", Duration::from_secs(60), || {
                match get(place.address(), "/version", Duration::from_secs(2)) {
                    Ok(answer) if answer.body.trim() == "1" => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
    }

    /// Begins to ask all of them.
    pub(crate) fn ask(&self) -> Vec<Asker> {
        let asker = |place: &Place| Asker::start(place.address(), "2", ASK_EVERY);
        self.places.iter().map(asker).collect()
    }
}
