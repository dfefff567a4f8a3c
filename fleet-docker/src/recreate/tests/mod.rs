//! The pure part against tables, recorded answers, and generated containers.

mod config;
mod group;
mod mounts;
mod networks;
mod property;

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::ids::{ContainerId, UpdateId, VolumeName};
use fleet_core::ports::Repoint;
use fleet_core::time::Timestamp;
use serde_json::{Value, json};

use super::{CreatePlan, EngineSpec, Inputs, Spec, config as three_way, plan, spec_diff};
use crate::engine::ApiVersion;

/// The oldest API that fleet is tested with, and one that takes all networks at once.
const OLD_API: ApiVersion = ApiVersion {
    major: 1,
    minor: 41,
};
const NEW_API: ApiVersion = ApiVersion {
    major: 1,
    minor: 44,
};

fn id() -> ContainerId {
    ContainerId::new("0123456789ab".to_owned() + &"c".repeat(52)).expect("an id")
}

fn update() -> UpdateId {
    UpdateId::new(Timestamp::from_millis(1_800_000_000_000), [0xa5; 10])
}

/// A container that was made from `user` (a create body) and an image.
fn container(user: &Value, image: &Value) -> EngineSpec {
    let mut user = user.as_object().cloned().unwrap_or_default();
    let host = user.remove("HostConfig").unwrap_or_else(|| json!({}));
    let networks = user.remove("Networks").unwrap_or_else(|| json!({}));
    let mounts = user.remove("Mounted").unwrap_or_else(|| json!([]));
    let mut config = three_way::merged(&user, image);
    config.insert("Image".to_owned(), Value::from("app:1"));
    config
        .entry("Hostname")
        .or_insert(Value::from("0123456789ab"));
    EngineSpec {
        schema: EngineSpec::SCHEMA,
        inspect: json!({
            "Id": id(),
            "Name": "/web",
            "Config": config,
            "HostConfig": host,
            "Mounts": mounts,
            "NetworkSettings": { "Networks": networks },
        }),
        image_config: image.clone(),
        host_name: "engine-host".to_owned(),
        inherited_targets: BTreeSet::new(),
        parents: BTreeMap::new(),
    }
}

/// How it is planned; everything beyond container and image at its plainest.
struct Planner<'a> {
    spec: &'a EngineSpec,
    image: Value,
    repoint: Vec<Repoint>,
    empty: BTreeSet<VolumeName>,
    hash: Option<&'a str>,
    api: ApiVersion,
}

impl<'a> Planner<'a> {
    fn new(spec: &'a EngineSpec, image: &Value) -> Self {
        Self {
            spec,
            image: image.clone(),
            repoint: Vec::new(),
            empty: BTreeSet::new(),
            hash: None,
            api: OLD_API,
        }
    }

    fn plan(&self) -> CreatePlan {
        plan(&Inputs {
            spec: self.spec,
            image_id: "sha256:new",
            image_config: &self.image,
            image: "app:2",
            update: &update(),
            repoint: &self.repoint,
            empty_volumes: &self.empty,
            compose_hash: self.hash,
            api: self.api,
        })
    }

    /// Differences that nobody expects.
    fn surprises(&self) -> Vec<String> {
        let old = Spec::of_engine(self.spec);
        let new = Spec::of_plan(&self.plan(), &self.image);
        spec_diff(&old, &new)
            .iter()
            .filter(|difference| !difference.is_expected())
            .map(ToString::to_string)
            .collect()
    }
}

fn planned(user: &Value, old_image: &Value, new_image: &Value) -> Value {
    let spec = container(user, old_image);
    let planner = Planner::new(&spec, new_image);
    assert_eq!(planner.surprises(), Vec::<String>::new());
    Value::Object(planner.plan().body)
}
