//! Probes of workloads that are not there: [`HealthProbe`] over a [`FakeHost`].

use async_trait::async_trait;

use super::host::{FakeHost, Side};
use super::workload::Wellness;
use crate::ports::{Clock as _, HealthProbe, PortError, ProbeTarget, ProbeVerdict};

/// Probes the workloads of a fake host.
#[derive(Debug, Clone)]
pub struct FakeProbe(FakeHost);

impl FakeProbe {
    pub(super) fn new(host: FakeHost) -> Self {
        Self(host)
    }
}

enum Answer {
    Verdict(ProbeVerdict),
    Silence,
}

#[async_trait]
impl HealthProbe for FakeProbe {
    async fn probe(&self, target: &ProbeTarget) -> Result<ProbeVerdict, PortError> {
        let id = &target.container;
        let answer = self
            .0
            .call(Side::Engine, "probe the container", id.short(), |machine| {
                let fail = |text: &str| Answer::Verdict(ProbeVerdict::Fail(text.to_owned()));
                let ctr = match machine.ctr(id) {
                    Some(ctr) if ctr.is_running() => ctr,
                    _ => return Ok(fail("connection refused")),
                };
                let workload = machine.images.get(&ctr.image_id);
                Ok(match workload.map(|image| &image.workload) {
                    Some(workload) if workload.is_well(ctr.up_for(machine.now)) => {
                        Answer::Verdict(ProbeVerdict::Pass)
                    }
                    Some(workload) if workload.health == Wellness::Hangs => Answer::Silence,
                    _ => fail("status 503"),
                })
            })
            .await?;
        match answer {
            Answer::Verdict(verdict) => Ok(verdict),
            Answer::Silence => {
                self.0.clock().sleep(target.timeout).await;
                Ok(ProbeVerdict::Fail("no answer in time".to_owned()))
            }
        }
    }
}
