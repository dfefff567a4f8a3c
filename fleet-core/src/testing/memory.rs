//! Every store port in memory, with faults.
//!
//! It survives the engine that uses it, as a file would: clone the handle, drop the engine, go on. It is not for
//! production: nothing is durable.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::ids::{InstanceId, RolloutId, TenantId, UpdateId};
use crate::image::{Digest, ImageRef};
use crate::model::{FleetSettings, TenantMode, UpdateConfig};
use crate::plan::RolloutPlan;
use crate::plan::rollout::RolloutState;
use crate::ports::{
    Availability, AvailabilityStore, Deployed, EventFilter, EventStore, Journal, JournalError,
    JournalWrite, NewUpdate, Quarantined, RolloutStore, RolloutStoreError, SettingsStore,
    StoredRollout, StoredUpdate, TenantConfig, UpdateConfigRepository,
};
use crate::record::{Event, NewEvent};
use crate::time::Timestamp;

/// How a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFault {
    /// That write fails and leaves nothing, as when the disk is full for a moment.
    Fails,
    /// That write and all after it fail, as when the disk is gone.
    Broken,
    /// That write is done, but its caller is told that it failed, as when a sync reports an error late.
    AnswerLost,
}

/// Every store of a fleet, in memory. Handles share one state.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Default)]
struct State {
    // contents
    updates: Vec<StoredUpdate>,
    places: HashMap<UpdateId, usize>,
    open: BTreeSet<usize>,
    live: BTreeMap<InstanceId, UpdateId>,
    events: Vec<Event>,
    quarantine: BTreeMap<(InstanceId, Digest), Quarantined>,
    deployed: BTreeMap<InstanceId, Deployed>,
    configs: BTreeMap<TenantId, UpdateConfig>,
    settings: FleetSettings,
    available: BTreeMap<InstanceId, (Availability, Option<Digest>)>,
    rollouts: Vec<StoredRollout>,
    // faults
    writes: u64,
    faults: BTreeMap<u64, WriteFault>,
    broken: bool,
}

impl MemoryStore {
    /// An empty store without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A backup: another store with what this one holds now.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            state: Arc::new(Mutex::new(self.lock().clone())),
        }
    }

    /// Lets the n-th write from now fail; 1 is the next one. Each call adds a fault.
    pub fn inject(&self, nth: u64, fault: WriteFault) {
        let mut state = self.lock();
        let at = state.writes + nth;
        state.faults.insert(at, fault);
    }

    /// Takes back every fault, also a lasting one.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.faults.clear();
        state.broken = false;
    }

    /// Writes asked for so far, failed ones included: the bound for "fail the n-th write, for every n".
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Every event, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// Every update, oldest first.
    #[must_use]
    pub fn updates(&self) -> Vec<StoredUpdate> {
        self.lock().updates.clone()
    }

    /// Looks at every update and every event, oldest first, without a copy. The store cannot be used meanwhile.
    pub(super) fn look<T>(&self, look: impl FnOnce(&[StoredUpdate], &[Event]) -> T) -> T {
        let state = self.lock();
        look(&state.updates, &state.events)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of a test's assertion while it held the lock leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One write: counted, failed if a fault says so. `work` refuses before it changes anything.
    fn write<R, E: From<Injected>>(
        &self,
        work: impl FnOnce(&mut State) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut state = self.lock();
        state.writes += 1;
        let nth = state.writes;
        let fault = state.faults.remove(&nth);
        state.broken |= fault == Some(WriteFault::Broken);
        if state.broken || fault == Some(WriteFault::Fails) {
            return Err(Injected(format!("write {nth} was made to fail")).into());
        }
        let done = work(&mut state)?;
        match fault {
            Some(_) => {
                Err(Injected(format!("write {nth} was done and its answer made to fail")).into())
            }
            None => Ok(done),
        }
    }
}

/// A fault that was asked for, on its way to the error of the port that was called.
struct Injected(String);

impl From<Injected> for JournalError {
    fn from(Injected(message): Injected) -> Self {
        store(message)
    }
}

impl From<Injected> for RolloutStoreError {
    fn from(Injected(message): Injected) -> Self {
        Self::Store {
            message,
            source: None,
        }
    }
}

fn store(message: String) -> JournalError {
    JournalError::Store {
        message,
        source: None,
    }
}

impl State {
    fn record(&mut self, events: Vec<NewEvent>) {
        for event in events {
            let sequence = self.events.last().map_or(1, |last| last.sequence + 1);
            self.events.push(Event { sequence, event });
        }
    }

    fn begin(&mut self, update: &NewUpdate, events: Vec<NewEvent>) -> Result<(), JournalError> {
        let plan = &update.plan;
        if plan.members.is_empty() {
            return Err(store(format!("update {} has no member", plan.id)));
        }
        let mut instances = BTreeSet::new();
        for member in &plan.members {
            if let Some(update) = self.live.get(&member.instance) {
                return Err(JournalError::LiveUpdate {
                    instance: member.instance.clone(),
                    update: *update,
                });
            }
            if !instances.insert(member.instance.clone()) {
                let instance = &member.instance;
                return Err(store(format!("update {} has {instance} twice", plan.id)));
            }
        }
        if self.places.contains_key(&plan.id) {
            return Err(store(format!("update {} exists already", plan.id)));
        }
        let place = self.updates.len();
        self.places.insert(plan.id, place);
        self.open.insert(place);
        self.live
            .extend(instances.into_iter().map(|instance| (instance, plan.id)));
        self.updates.push(StoredUpdate {
            plan: plan.clone(),
            created_at: update.at,
            boot_id: update.boot_id.clone(),
            entries: Vec::new(),
            outcome: None,
            volumes_dirty: false,
            closed: false,
        });
        self.record(events);
        Ok(())
    }

    fn append(&mut self, id: UpdateId, write: JournalWrite) -> Result<(), JournalError> {
        let place = *self.places.get(&id).ok_or(JournalError::NoSuchUpdate(id))?;
        let update = &mut self.updates[place];
        let found = u32::try_from(update.entries.len()).unwrap_or(u32::MAX);
        if found != write.expected_rows {
            return Err(JournalError::Overtaken {
                update: id,
                expected: write.expected_rows,
                found,
            });
        }
        if update.closed {
            return Err(JournalError::Closed(id));
        }
        update.entries.extend(write.entries);
        update.outcome = write.outcome.or(update.outcome);
        update.volumes_dirty |= write.volumes_dirty;
        if write.close {
            update.closed = true;
            self.open.remove(&place);
            self.live.retain(|_, live| *live != id);
        }
        self.record(write.events);
        for row in write.quarantine {
            let key = (row.instance.clone(), row.digest.clone());
            self.quarantine.insert(key, row);
        }
        for row in write.deployed {
            self.deployed.insert(row.instance.clone(), row);
        }
        Ok(())
    }

    fn found(&mut self, mut finding: Availability) {
        let known = self.available.get(&finding.instance);
        let seen = known.and_then(|(_, seen)| seen.clone());
        if let Some((known, _)) = known
            && (finding.digest.is_none() || finding.digest == seen)
        {
            finding.first_seen = known.first_seen;
        }
        let seen = finding.digest.clone().or(seen);
        self.available
            .insert(finding.instance.clone(), (finding, seen));
    }
}

#[async_trait]
impl Journal for MemoryStore {
    async fn open(&self, update: &NewUpdate, events: Vec<NewEvent>) -> Result<(), JournalError> {
        self.write(|state| state.begin(update, events))
    }

    async fn append(&self, update: &UpdateId, write: JournalWrite) -> Result<(), JournalError> {
        self.write(|state| state.append(*update, write))
    }

    async fn load_open(&self) -> Result<Vec<StoredUpdate>, JournalError> {
        let state = self.lock();
        let open = state.open.iter().map(|place| state.updates[*place].clone());
        Ok(open.collect())
    }

    async fn load(&self, update: &UpdateId) -> Result<Option<StoredUpdate>, JournalError> {
        let state = self.lock();
        let place = state.places.get(update);
        Ok(place.map(|place| state.updates[*place].clone()))
    }

    async fn history(
        &self,
        instance: &InstanceId,
        limit: u32,
    ) -> Result<Vec<StoredUpdate>, JournalError> {
        let state = self.lock();
        let of_instance = state.updates.iter().rev().filter(|update| {
            let mut members = update.plan.members.iter();
            members.any(|member| member.instance == *instance)
        });
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(of_instance.take(limit).cloned().collect())
    }

    async fn quarantined(&self, instance: &InstanceId) -> Result<Vec<Quarantined>, JournalError> {
        let state = self.lock();
        let of_instance = state.quarantine.values();
        let mut rows: Vec<_> = of_instance
            .filter(|row| row.instance == *instance)
            .cloned()
            .collect();
        rows.sort_by_key(|row| row.at);
        Ok(rows)
    }

    async fn lift_quarantine(
        &self,
        instance: &InstanceId,
        digest: &Digest,
    ) -> Result<(), JournalError> {
        self.write(|state| {
            state.quarantine.remove(&(instance.clone(), digest.clone()));
            Ok(())
        })
    }

    async fn deployed(&self) -> Result<Vec<Deployed>, JournalError> {
        Ok(self.lock().deployed.values().cloned().collect())
    }

    fn is_broken(&self) -> bool {
        self.lock().broken
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn record(&self, events: Vec<NewEvent>) -> Result<(), JournalError> {
        self.write(|state| {
            state.record(events);
            Ok(())
        })
    }

    async fn page(
        &self,
        after: u64,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<Vec<Event>, JournalError> {
        let state = self.lock();
        let wanted = state
            .events
            .iter()
            .filter(|event| event.sequence > after && matches(&event.event, filter));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(wanted.take(limit).cloned().collect())
    }
}

fn matches(event: &NewEvent, filter: &EventFilter) -> bool {
    let tenant = event.tenant.as_ref().map(ToString::to_string);
    let instance = event.instance.as_ref().map(ToString::to_string);
    (filter.tenant.is_none() || filter.tenant == tenant)
        && (filter.instance.is_none() || filter.instance == instance)
        && filter.since.is_none_or(|since| event.at >= since)
        && (filter.kinds.is_empty() || filter.kinds.contains(&event.kind))
}

#[async_trait]
impl UpdateConfigRepository for MemoryStore {
    async fn get(&self, tenant: &TenantId) -> Result<Option<UpdateConfig>, JournalError> {
        Ok(self.lock().configs.get(tenant).cloned())
    }

    async fn upsert(
        &self,
        tenant: &TenantId,
        config: &UpdateConfig,
        actor: &str,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        self.write(|state| {
            let hour = config.preferred_hour_utc;
            if hour > 23 {
                return Err(store(format!(
                    "expected an hour from 0 to 23, found {hour}"
                )));
            }
            let old = state.configs.insert(tenant.clone(), config.clone());
            let tenant = Some(tenant.clone());
            let changed = NewEvent::config_changed(now, actor, tenant, &old, config);
            state.record(vec![changed]);
            Ok(())
        })
    }

    async fn list_auto_enabled(&self) -> Result<Vec<TenantConfig>, JournalError> {
        let mut all = UpdateConfigRepository::list(self).await?;
        all.retain(|tenant| tenant.config.mode == TenantMode::Auto);
        Ok(all)
    }

    async fn list(&self) -> Result<Vec<TenantConfig>, JournalError> {
        let state = self.lock();
        let all = state.configs.iter().map(|(tenant, config)| TenantConfig {
            tenant: tenant.clone(),
            config: config.clone(),
        });
        Ok(all.collect())
    }
}

#[async_trait]
impl SettingsStore for MemoryStore {
    async fn settings(&self) -> Result<FleetSettings, JournalError> {
        Ok(self.lock().settings.clone())
    }

    async fn set_settings(
        &self,
        settings: &FleetSettings,
        actor: &str,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        self.write(|state| {
            let old = std::mem::replace(&mut state.settings, settings.clone());
            let changed = NewEvent::config_changed(now, actor, None, &old, settings);
            state.record(vec![changed]);
            Ok(())
        })
    }
}

#[async_trait]
impl AvailabilityStore for MemoryStore {
    async fn found(&self, findings: Vec<Availability>) -> Result<(), JournalError> {
        self.write(|state| {
            for finding in findings {
                state.found(finding);
            }
            Ok(())
        })
    }

    async fn available(&self) -> Result<Vec<Availability>, JournalError> {
        let state = self.lock();
        let all = state.available.values();
        Ok(all.map(|(finding, _)| finding.clone()).collect())
    }
}

#[async_trait]
impl RolloutStore for MemoryStore {
    async fn create(
        &self,
        plan: &RolloutPlan,
        state: &RolloutState,
        events: Vec<NewEvent>,
    ) -> Result<(), RolloutStoreError> {
        self.write(|stored| {
            if stored
                .rollouts
                .iter()
                .any(|kept| kept.plan.id() == plan.id())
            {
                return Err(RolloutStoreError::Exists(plan.id()));
            }
            same_members(plan, state)?;
            stored.rollouts.push(StoredRollout {
                plan: plan.clone(),
                state: state.clone(),
                generation: 1,
            });
            stored.record(events);
            Ok(())
        })
    }

    async fn load(&self, id: &RolloutId) -> Result<Option<StoredRollout>, RolloutStoreError> {
        let state = self.lock();
        let found = state.rollouts.iter().find(|kept| kept.plan.id() == *id);
        Ok(found.cloned())
    }

    async fn active(&self) -> Result<Vec<StoredRollout>, RolloutStoreError> {
        let state = self.lock();
        let active = state.rollouts.iter();
        let active = active.filter(|kept| !kept.state.phase.is_terminal());
        Ok(active.cloned().collect())
    }

    async fn list(&self, limit: u32) -> Result<Vec<StoredRollout>, RolloutStoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let state = self.lock();
        Ok(state.rollouts.iter().rev().take(limit).cloned().collect())
    }

    async fn of_image(
        &self,
        image: &ImageRef,
        limit: u32,
    ) -> Result<Vec<StoredRollout>, RolloutStoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let state = self.lock();
        let all = state.rollouts.iter().rev();
        let ours = all.filter(|stored| stored.plan.request.target.image == *image);
        Ok(ours.take(limit).cloned().collect())
    }

    async fn compare_and_swap(
        &self,
        id: &RolloutId,
        expected: u64,
        state: &RolloutState,
        events: Vec<NewEvent>,
    ) -> Result<u64, RolloutStoreError> {
        self.write(|stored| {
            let mut kept = stored.rollouts.iter_mut();
            let kept = kept
                .find(|kept| kept.plan.id() == *id)
                .ok_or(RolloutStoreError::NoSuchRollout(*id))?;
            if kept.generation != expected {
                return Err(RolloutStoreError::Overtaken {
                    rollout: *id,
                    expected,
                    found: kept.generation,
                });
            }
            same_members(&kept.plan, state)?;
            kept.state = state.clone();
            kept.generation += 1;
            let generation = kept.generation;
            stored.record(events);
            Ok(generation)
        })
    }
}

fn same_members(plan: &RolloutPlan, state: &RolloutState) -> Result<(), RolloutStoreError> {
    let (expected, found) = (plan.members.len(), state.members.len());
    if expected == found {
        return Ok(());
    }
    let id = plan.id();
    Err(RolloutStoreError::Store {
        message: format!(
            "expected the states of {expected} members of rollout {id}, found {found}"
        ),
        source: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::conformance::{self, fixtures};

    #[tokio::test]
    async fn passes_every_suite() {
        conformance::journal(async || MemoryStore::new()).await;
        conformance::events(async || MemoryStore::new()).await;
        conformance::configs(async || MemoryStore::new()).await;
        conformance::settings(async || MemoryStore::new()).await;
        conformance::availability(async || MemoryStore::new()).await;
        conformance::rollouts(async || MemoryStore::new()).await;
    }

    #[tokio::test]
    async fn faults_hit_the_write_they_are_meant_for() {
        let store = MemoryStore::new();
        let events = |n: u8| vec![fixtures::event(n)];
        store.inject(2, WriteFault::Fails);
        store.inject(3, WriteFault::AnswerLost);
        store.inject(5, WriteFault::Broken);
        let mut answers = Vec::new();
        for n in 1..=6 {
            answers.push(store.record(events(n)).await.is_ok());
        }
        assert_eq!(answers, [true, false, false, true, false, false]);
        let kept: Vec<_> = store.events().into_iter().map(|e| e.event).collect();
        let expected: Vec<_> = [1, 3, 4].map(fixtures::event).into();
        assert_eq!(kept, expected);
        store.heal();
        assert!(store.record(events(7)).await.is_ok());
        assert_eq!(store.writes(), 7);
    }
}
