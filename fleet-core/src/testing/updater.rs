//! A fleet of instances that are updated by pretending, for tests of rollouts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::engine::rollout::{
    FleetView, Happened, InstanceView, UpdateOrder, Updater, UpdaterError,
};
use crate::ids::{InstanceId, InstanceName, RolloutId, TenantId, UpdateId};
use crate::image::{Digest, ImageRef, PinnedImage};
use crate::model::labels::LabelMode;
use crate::model::{Channel, FleetSettings, UpdateConfig};
use crate::plan::rollout::{Ending, UpdateEnd};
use crate::plan::strategy::FailureKind;
use crate::plan::{Asked, Candidate, InstanceState, mode_of};
use crate::ports::Clock;
use crate::time::Timestamp;

/// How long a registry that does not answer keeps an update waiting.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an update takes unless said otherwise.
const UPDATE_TIME: Duration = Duration::from_secs(30);

/// A candidate that runs `old` and wants whatever comes: automatic, healthy, without windows.
///
/// # Panics
/// A name is not one of an instance or tenant.
#[must_use]
pub fn candidate(name: &str, tenant: &str) -> Candidate {
    Candidate {
        instance: InstanceId::local(InstanceName::new(name).expect("a container's name")),
        tenant: TenantId::new(tenant).expect("a tenant's name"),
        channel: Channel::default(),
        current: Some(Digest::of(b"old")),
        behind: None,
        enabled: true,
        restricted_by: None,
        mode: Some(LabelMode::Auto),
        policy: None,
        window: None,
        pin: None,
        cohort: None,
        priority: 0,
        min_age: None,
        health_timeout: Duration::from_secs(120),
        state: InstanceState::Idle,
        healthy: true,
        quarantined: false,
        failed_before: false,
        own: false,
        group: None,
        estimate: Some(Duration::from_secs(60)),
    }
}

/// The reference under which the instances ran whatever they ran before: fleets of this kind keep none of their own.
fn image_before() -> ImageRef {
    "registry.example/app".parse().expect("a reference")
}

/// What a release does to the instances that get it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Nature {
    /// It works.
    #[default]
    Good,
    /// It works nowhere.
    Bad,
    /// It does not work on these.
    BadOn(BTreeSet<String>),
    /// It does not work on these, and they cannot be taken back.
    StuckOn(BTreeSet<String>),
}

/// A fleet behind the port [`Updater`]. Handles share one state, which survives whoever drives the rollouts.
///
/// # What it watches
/// It panics if an instance is updated twice at the same time, or gets a digest that is quarantined on it.
#[derive(Clone)]
pub struct FakeUpdater {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for FakeUpdater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeUpdater")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    // the world
    instances: BTreeMap<InstanceId, Instance>,
    natures: BTreeMap<Digest, Nature>,
    settings: FleetSettings,
    tenants: BTreeMap<TenantId, UpdateConfig>,
    registry_down: bool,
    engine_down: bool,
    disk_full: bool,
    short_of_space: BTreeSet<InstanceId>,
    // what it remembers
    journal: BTreeMap<UpdateId, (UpdateOrder, Option<UpdateEnd>)>,
    before: BTreeMap<(RolloutId, InstanceId), Digest>,
    log: Vec<(Timestamp, String)>,
    in_flight_max: usize,
    begun: usize,
}

#[derive(Debug)]
struct Instance {
    candidate: Candidate,
    takes: Duration,
    quarantine: BTreeSet<Digest>,
}

impl FakeUpdater {
    /// An empty fleet on this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Arc::default(),
        }
    }

    /// Adds an instance, or replaces one of that name.
    pub fn add(&self, candidate: Candidate) {
        self.add_slow(candidate, UPDATE_TIME);
    }

    /// Adds an instance whose updates take so long.
    pub fn add_slow(&self, candidate: Candidate, takes: Duration) {
        let instance = Instance {
            takes,
            quarantine: BTreeSet::new(),
            candidate,
        };
        self.lock()
            .instances
            .insert(instance.candidate.instance.clone(), instance);
    }

    /// Takes an instance away, as somebody outside would.
    pub fn remove(&self, instance: &InstanceId) {
        self.lock().instances.remove(instance);
    }

    /// Says what a digest does to the instances that get it.
    pub fn release(&self, digest: Digest, nature: Nature) {
        self.lock().natures.insert(digest, nature);
    }

    /// Changes settings of the fleet.
    pub fn settings(&self, change: impl FnOnce(&mut FleetSettings)) {
        change(&mut self.lock().settings);
    }

    /// Sets a tenant's config.
    pub fn tenant(&self, tenant: TenantId, config: UpdateConfig) {
        self.lock().tenants.insert(tenant, config);
    }

    /// Fills the disk for snapshots, or frees it.
    pub fn disk_full(&self, full: bool) {
        self.lock().disk_full = full;
    }

    /// The snapshots of this instance alone fit, or do not.
    pub fn lacks_space(&self, instance: &InstanceId, lacks: bool) {
        let mut state = self.lock();
        match lacks {
            true => state.short_of_space.insert(instance.clone()),
            false => state.short_of_space.remove(instance),
        };
    }

    /// The registry answers, or does not.
    pub fn registry(&self, up: bool) {
        self.lock().registry_down = !up;
    }

    /// The engine lets itself be looked at, or does not.
    pub fn engine(&self, up: bool) {
        self.lock().engine_down = !up;
    }

    /// Changes an instance as somebody outside would.
    pub fn change(&self, instance: &InstanceId, change: impl FnOnce(&mut Candidate)) {
        if let Some(instance) = self.lock().instances.get_mut(instance) {
            change(&mut instance.candidate);
        }
    }

    /// What a restart does before anything else: updates in flight are rolled back, by no fault of the release.
    pub fn recover(&self) {
        let now = self.clock.now();
        let mut state = self.lock();
        let open: Vec<UpdateId> = state
            .journal
            .iter()
            .filter(|(_, (_, end))| end.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in open {
            let end = UpdateEnd::Unsuccessful {
                how: Ending::RolledBack,
                kind: FailureKind::Infrastructure,
                why: "fleet died".to_owned(),
            };
            state.end(id, end, now);
        }
    }

    /// What was done, in order, since the last time this was asked.
    #[must_use]
    pub fn take_log(&self) -> Vec<(Timestamp, String)> {
        std::mem::take(&mut self.lock().log)
    }

    /// Updates that began.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.lock().begun
    }

    /// Most updates that were in flight at the same time.
    #[must_use]
    pub fn in_flight_max(&self) -> usize {
        self.lock().in_flight_max
    }

    /// How every update that was ordered ended; none while it is open.
    #[must_use]
    pub fn ends(&self) -> Vec<(UpdateOrder, Option<UpdateEnd>)> {
        self.lock().journal.values().cloned().collect()
    }

    /// What an instance runs.
    #[must_use]
    pub fn runs(&self, instance: &InstanceId) -> Option<Digest> {
        self.lock()
            .instances
            .get(instance)
            .and_then(|instance| instance.candidate.current.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Begins an update; returns how it ends and after what time.
    fn begin(&mut self, order: &UpdateOrder, now: Timestamp) -> (Duration, UpdateEnd) {
        assert!(
            !self.journal.contains_key(&order.id),
            "the order {} was given twice",
            order.id
        );
        self.journal.insert(order.id, (order.clone(), None));
        self.begun += 1;
        let in_flight = self
            .journal
            .values()
            .filter(|(_, end)| end.is_none())
            .count();
        self.in_flight_max = self.in_flight_max.max(in_flight);
        let name = order.instance.name.as_str().to_owned();
        let nature = self
            .natures
            .get(&order.target.digest)
            .cloned()
            .unwrap_or_default();
        let instance = self
            .instances
            .get_mut(&order.instance)
            .expect("an instance of the fleet");
        assert_eq!(
            instance.candidate.state,
            InstanceState::Idle,
            "{name} is updated twice at the same time"
        );
        instance.candidate.state = InstanceState::Updating;
        if order.retry_quarantined {
            instance.quarantine.remove(&order.target.digest);
        }
        assert!(
            !instance.quarantine.contains(&order.target.digest),
            "{name} gets a digest that is quarantined on it"
        );
        self.log
            .push((now, format!("{name} begins, attempt {}", order.attempt)));
        let failed = |how, kind, why: &str| UpdateEnd::Unsuccessful {
            how,
            kind,
            why: why.to_owned(),
        };
        if self.registry_down {
            let why = "the registry does not answer";
            return (
                REGISTRY_TIMEOUT,
                failed(Ending::Failed, FailureKind::Infrastructure, why),
            );
        }
        if self.disk_full || self.short_of_space.contains(&order.instance) {
            let why = "there is no space for its snapshot".to_owned();
            return (Duration::ZERO, UpdateEnd::NoSpace { why });
        }
        let end = match nature {
            Nature::Bad => failed(Ending::RolledBack, FailureKind::Release, "not healthy"),
            Nature::BadOn(names) if names.contains(&name) => {
                failed(Ending::RolledBack, FailureKind::Release, "not healthy")
            }
            Nature::StuckOn(names) if names.contains(&name) => failed(
                Ending::NeedsOperator,
                FailureKind::NeedsPerson,
                "not healthy, and no way back",
            ),
            Nature::Good | Nature::BadOn(_) | Nature::StuckOn(_) => UpdateEnd::Committed,
        };
        (instance.takes, end)
    }

    fn end(&mut self, id: UpdateId, end: UpdateEnd, now: Timestamp) {
        let Some((order, place)) = self.journal.get_mut(&id) else {
            return;
        };
        *place = Some(end.clone());
        let Some(instance) = self.instances.get_mut(&order.instance) else {
            return;
        };
        let digest = order.target.digest.clone();
        let candidate = &mut instance.candidate;
        candidate.state = InstanceState::Idle;
        let said = match &end {
            UpdateEnd::Committed | UpdateEnd::Unchanged => {
                let before = candidate.current.replace(digest);
                let key = (order.rollout, order.instance.clone());
                self.before.extend(before.map(|before| (key, before)));
                candidate.healthy = true;
                "runs it".to_owned()
            }
            UpdateEnd::Unsuccessful { how, kind, why } => {
                candidate.failed_before = true;
                if *how == Ending::NeedsOperator {
                    candidate.state = InstanceState::NeedsOperator;
                }
                if *kind == FailureKind::Release {
                    instance.quarantine.insert(digest);
                }
                format!("{}: {why}", how.label())
            }
            UpdateEnd::Refused { why }
            | UpdateEnd::NoSpace { why }
            | UpdateEnd::Deferred { why, .. } => why.clone(),
        };
        self.log.push((now, format!("{} {said}", order.instance)));
        if end != UpdateEnd::Committed {
            return;
        }
        for (instance, target) in order.with.clone() {
            if let Some(companion) = self.instances.get_mut(&instance) {
                let before = companion.candidate.current.replace(target.digest);
                self.before
                    .extend(before.map(|before| ((order.rollout, instance), before)));
            }
        }
    }
}

#[async_trait]
impl Updater for FakeUpdater {
    async fn update_instance(&self, order: &UpdateOrder) -> UpdateEnd {
        let (takes, end) = self.lock().begin(order, self.clock.now());
        self.clock.sleep(takes).await;
        self.lock().end(order.id, end.clone(), self.clock.now());
        end
    }

    async fn happened(&self, update: &UpdateId) -> Result<Happened, UpdaterError> {
        Ok(match self.lock().journal.get(update) {
            None => Happened::NeverBegan,
            Some((_, None)) => Happened::Open,
            Some((_, Some(end))) => Happened::Ended(end.clone()),
        })
    }

    async fn ran_before(
        &self,
        rollout: &RolloutId,
        instance: &InstanceId,
    ) -> Result<Option<PinnedImage>, UpdaterError> {
        let state = self.lock();
        let known = state.before.get(&(*rollout, instance.clone()));
        Ok(known.map(|digest| image_before().pinned(digest.clone())))
    }

    async fn fleet(&self) -> Result<FleetView, UpdaterError> {
        let state = self.lock();
        if state.engine_down {
            return Err(UpdaterError {
                message: "the engine is away".to_owned(),
                source: None,
            });
        }
        let instances = state.instances.values();
        let instances = instances.map(|Instance { candidate, .. }| InstanceView {
            instance: candidate.instance.clone(),
            tenant: candidate.tenant.clone(),
            healthy: candidate.healthy,
            state: candidate.state,
            label_mode: candidate.mode,
            mode: mode_of(
                state.settings.mode,
                state.tenants.get(&candidate.tenant),
                candidate.mode,
                candidate.policy.as_deref(),
            ),
        });
        Ok(FleetView {
            settings: state.settings.clone(),
            tenants: state.tenants.clone(),
            instances: instances.collect(),
        })
    }

    async fn candidates(
        &self,
        target: &PinnedImage,
        asked: &Asked,
    ) -> Result<Vec<Candidate>, UpdaterError> {
        let polled = |candidate: &Candidate| match asked {
            Asked::ByDetection {
                channel: Some(channel),
            } => candidate.channel == *channel,
            _ => true,
        };
        let state = self.lock();
        let instances = state.instances.values();
        let polled = instances.filter(|instance| polled(&instance.candidate));
        let candidates = polled.map(|instance| Candidate {
            quarantined: instance.quarantine.contains(&target.digest),
            ..instance.candidate.clone()
        });
        Ok(candidates.collect())
    }

    async fn probe(&self, _target: &PinnedImage) -> bool {
        !self.lock().registry_down
    }

    async fn has_space(&self, instance: &InstanceId) -> bool {
        let state = self.lock();
        !state.disk_full && !state.short_of_space.contains(instance)
    }
}
