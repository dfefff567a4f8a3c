//! One HTTP probe, to the container's own address and nowhere else.
//!
//! The address comes from the engine alone: the container's place on its networks, its network parent's, or loopback
//! for the host network. A label can say path and port, never a host; a redirect, a proxy of the environment or a name
//! cannot lead the probe away, since none of them is looked at.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use fleet_core::ids::ContainerId;
use fleet_core::model::{Container, HttpCheck};
use fleet_core::ports::{
    ContainerRuntime, HealthProbe, PortError, PortErrorKind, ProbeTarget, ProbeVerdict,
};
use futures::StreamExt;
use serde_json::Value;

use crate::engine::{DockerEngine, plain_client_builder};

const OP: &str = "probe a container";
/// Most bytes of a body that are read; enough for any health report, too few to hurt.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest chain of containers that share a network through one another.
const PARENTS_MAX: usize = 8;

#[async_trait]
impl HealthProbe for DockerEngine {
    async fn probe(&self, target: &ProbeTarget) -> Result<ProbeVerdict, PortError> {
        let limit = target.timeout;
        match tokio::time::timeout(limit, self.probe_once(target)).await {
            Ok(verdict) => verdict,
            Err(_) => Ok(ProbeVerdict::Fail(format!("no answer within {limit:?}"))),
        }
    }
}

impl DockerEngine {
    async fn probe_once(&self, target: &ProbeTarget) -> Result<ProbeVerdict, PortError> {
        let Some(container) = self.inspect(&target.container).await? else {
            return Ok(ProbeVerdict::Fail("the container is gone".to_owned()));
        };
        let port = port(&container, &target.check)?;
        let addresses = self.addresses(container).await?;
        if addresses.is_empty() {
            return Ok(ProbeVerdict::Fail(
                "the container has no address".to_owned(),
            ));
        }
        ask_addresses(&addresses, port, &target.check).await
    }

    /// Where the container can be reached, the network of its mode first.
    pub(crate) async fn addresses(&self, container: Container) -> Result<Vec<IpAddr>, PortError> {
        let mut container = container;
        for _ in 0..PARENTS_MAX {
            if container.network_mode == "host" {
                return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
            }
            if !container.network_mode.starts_with("container:") {
                return Ok(own_addresses(&container));
            }
            let parent: Option<&ContainerId> = container
                .parents
                .iter()
                .find(|parent| parent.via == "network")
                .and_then(|parent| parent.id.as_ref());
            let Some(parent) = parent else {
                return Ok(Vec::new());
            };
            match self.inspect(parent).await? {
                Some(parent) => container = parent,
                None => return Ok(Vec::new()),
            }
        }
        Ok(Vec::new())
    }
}

fn own_addresses(container: &Container) -> Vec<IpAddr> {
    let primary = match container.network_mode.as_str() {
        "" | "default" => "bridge",
        name => name,
    };
    let of = |wanted: bool| {
        container
            .networks
            .iter()
            .filter(move |place| (place.network == primary) == wanted)
            .flat_map(|place| place.addresses.iter().copied())
    };
    of(true).chain(of(false)).collect()
}

/// Asks one address after the other until somebody answers.
pub(crate) async fn ask_addresses(
    addresses: &[IpAddr],
    port: u16,
    check: &HttpCheck,
) -> Result<ProbeVerdict, PortError> {
    let client = plain_client_builder()
        .pool_max_idle_per_host(0)
        .build()
        .map_err(|source| {
            PortError::new(OP, PortErrorKind::Failed, "no HTTP client").with_source(source)
        })?;
    let mut verdict = ProbeVerdict::Fail("no address was tried".to_owned());
    for address in addresses {
        let attempt = ask(&client, SocketAddr::new(*address, port), check).await;
        let answered = attempt.answered;
        verdict = attempt.verdict;
        if answered {
            break;
        }
    }
    Ok(verdict)
}

/// The port to ask: the check's own, else the only one that is exposed.
pub(crate) fn port(container: &Container, check: &HttpCheck) -> Result<u16, PortError> {
    match (check.port, container.exposed_ports.as_slice()) {
        (Some(port), _) => Ok(port),
        (None, [port]) => Ok(*port),
        (None, ports) => {
            let message = format!(
                "expected exactly one exposed port, found {ports:?}; set the label fleet.health.port"
            );
            Err(PortError::new(OP, PortErrorKind::Invalid, message))
        }
    }
}

struct Attempt {
    verdict: ProbeVerdict,
    /// Whether somebody answered at that address: then no other address is asked.
    answered: bool,
}

impl Attempt {
    fn fail(answered: bool, reason: impl Into<String>) -> Self {
        Self {
            verdict: ProbeVerdict::Fail(reason.into()),
            answered,
        }
    }
}

async fn ask(client: &reqwest::Client, address: SocketAddr, check: &HttpCheck) -> Attempt {
    // The path is appended to an address that is complete already, so it cannot change the host.
    let Ok(base) = url::Url::parse(&format!("http://{address}/")) else {
        return Attempt::fail(false, "the container's address cannot be asked");
    };
    let Some(url) = base
        .join(&check.path)
        .ok()
        .filter(|url| url.origin() == base.origin())
    else {
        return Attempt::fail(
            true,
            format!("expected a path such as /health, found {:?}", check.path),
        );
    };
    let response = match client.get(url).send().await {
        Ok(response) => response,
        Err(error) => {
            return Attempt::fail(
                !error.is_connect(),
                format!("no answer from {address}: {}", root(&error)),
            );
        }
    };
    let status = response.status();
    if !status.is_success() {
        return Attempt::fail(true, format!("answered {status}"));
    }
    let body = match body(response).await {
        Ok(body) => body,
        Err(reason) => return Attempt::fail(true, reason),
    };
    let Some(expected) = &check.expect else {
        return Attempt {
            verdict: ProbeVerdict::Pass,
            answered: true,
        };
    };
    match serde_json::from_slice::<Value>(&body) {
        Ok(found) if contains(&found, expected) => Attempt {
            verdict: ProbeVerdict::Pass,
            answered: true,
        },
        Ok(_) => Attempt::fail(true, format!("the answer does not contain {expected}")),
        Err(_) => Attempt::fail(true, "the answer is not JSON"),
    }
}

/// The body, if it ends within the cap.
async fn body(response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| format!("the answer broke off: {}", root(&error)))?;
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(format!("the answer is longer than {BODY_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost cause, which says more than its wrappers.
fn root(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

/// Whether `found` contains `expected`: every field of an object, every item of a list (in any order), equal scalars.
pub(crate) fn contains(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(name, expected)| {
                found
                    .get(name)
                    .is_some_and(|found| contains(found, expected))
            })
        }
        (Value::Array(found), Value::Array(expected)) => expected
            .iter()
            .all(|expected| found.iter().any(|found| contains(found, expected))),
        (Value::Number(found), Value::Number(expected)) => {
            found == expected || found.as_f64() == expected.as_f64()
        }
        (found, expected) => found == expected,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(found: Value, expected: Value, expect: bool) {
        assert_eq!(contains(&found, &expected), expect, "{expected} in {found}");
    }

    #[test]
    fn an_answer_contains_what_is_expected_at_any_depth() {
        let answer = json!({ "status": "ok", "checks": [{ "name": "db", "up": true }, { "name": "q" }], "n": 1 });
        check(answer.clone(), json!({}), true);
        check(answer.clone(), json!({ "status": "ok" }), true);
        check(answer.clone(), json!({ "status": "OK" }), false);
        check(
            answer.clone(),
            json!({ "checks": [{ "name": "q" }, { "up": true }] }),
            true,
        );
        check(
            answer.clone(),
            json!({ "checks": [{ "name": "db", "up": false }] }),
            false,
        );
        check(answer.clone(), json!({ "n": 1.0 }), true);
        check(answer.clone(), json!({ "none": null }), false);
        check(answer, json!([]), false);
        check(json!([1, 2]), json!([2]), true);
        check(json!("ok"), json!("ok"), true);
        check(json!(null), json!(null), true);
    }

    #[test]
    fn the_network_of_the_mode_is_asked_first() {
        let place = |network: &str, address: &str| fleet_core::model::NetworkAttachment {
            network: network.to_owned(),
            addresses: vec![address.parse().expect("an address")],
        };
        let order = |mode: &str| {
            let mut container = crate::engine::plain_container();
            container.network_mode = mode.to_owned();
            container.networks = vec![place("back", "10.0.0.2"), place("bridge", "10.0.0.3")];
            own_addresses(&container)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(order("default"), ["10.0.0.3", "10.0.0.2"]);
        assert_eq!(order("back"), ["10.0.0.2", "10.0.0.3"]);
    }
}
