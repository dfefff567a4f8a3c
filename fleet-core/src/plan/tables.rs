//! Numbers for what many instances of a plan share.

use std::collections::{BTreeMap, HashMap};

use super::rollout_plan::ScheduleSpec;
use crate::ids::TenantId;
use crate::image::Digest;
use crate::model::{Channel, TenantMode, UpdateConfig};

/// What a plan's tables are made of. Each tenant is looked up once for each of its instances, and its config only once.
#[derive(Debug)]
pub(super) struct Tables<'a> {
    tenants: Vec<&'a TenantId>,
    entries: HashMap<&'a str, TenantEntry<'a>>,
    digests: Vec<&'a Digest>,
    digest_numbers: HashMap<&'a Digest, u32>,
    /// The digest that was asked for last: mostly the next one is the same.
    last_digest: Option<(&'a Digest, u32)>,
    schedules: Vec<ScheduleSpec>,
    schedule_numbers: HashMap<ScheduleSpec, u32>,
    channels: Vec<&'a Channel>,
    channel_numbers: HashMap<&'a Channel, u32>,
}

/// The number of a tenant of which no instance was seen. There are fewer instances than that.
const UNSEEN: u32 = u32::MAX;

/// What is known of a tenant.
#[derive(Debug, Clone, Copy)]
pub(super) struct TenantEntry<'a> {
    /// Its number, once one of its instances was seen.
    pub(super) number: u32,
    /// Its config, if it has one.
    pub(super) config: Option<&'a UpdateConfig>,
    /// The mode in that config.
    pub(super) mode: Option<TenantMode>,
    /// The schedule of its instances that have none of their own, once one was looked for.
    pub(super) schedule: Option<u32>,
}

/// The tables of a plan.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) tenants: Vec<TenantId>,
    pub(super) digests: Vec<Digest>,
    pub(super) schedules: Vec<ScheduleSpec>,
    pub(super) channels: Vec<Channel>,
}

impl<'a> Tables<'a> {
    /// Empty ones; `configs` are those of the tenants that have one.
    pub(super) fn new(configs: &'a BTreeMap<TenantId, UpdateConfig>) -> Self {
        // Once for all of them, in their order: to look for each when it is seen takes longer.
        let entries = configs.iter().map(|(tenant, config)| {
            let entry = TenantEntry {
                number: UNSEEN,
                config: Some(config),
                mode: Some(config.mode),
                schedule: None,
            };
            (tenant.as_str(), entry)
        });
        Self {
            tenants: Vec::with_capacity(configs.len()),
            entries: entries.collect(),
            digests: Vec::new(),
            digest_numbers: HashMap::new(),
            last_digest: None,
            schedules: Vec::new(),
            schedule_numbers: HashMap::new(),
            channels: Vec::new(),
            channel_numbers: HashMap::new(),
        }
    }

    /// What is known of a tenant.
    pub(super) fn tenant(&mut self, tenant: &'a TenantId) -> TenantEntry<'a> {
        let entry = self.entries.entry(tenant.as_str()).or_insert(TenantEntry {
            number: UNSEEN,
            config: None,
            mode: None,
            schedule: None,
        });
        if entry.number == UNSEEN {
            entry.number = as_number(self.tenants.len());
            self.tenants.push(tenant);
        }
        *entry
    }

    /// What a tenant says for its instances.
    pub(super) fn remember_schedule(&mut self, tenant: &TenantId, schedule: u32) {
        if let Some(entry) = self.entries.get_mut(tenant.as_str()) {
            entry.schedule = Some(schedule);
        }
    }

    /// The number of a digest.
    pub(super) fn digest(&mut self, digest: &'a Digest) -> u32 {
        match self.last_digest {
            Some((last, number)) if last == digest => number,
            _ => {
                let number = number(&mut self.digest_numbers, &mut self.digests, digest);
                self.last_digest = Some((digest, number));
                number
            }
        }
    }

    /// The number of a schedule.
    pub(super) fn schedule(&mut self, schedule: ScheduleSpec) -> u32 {
        if let Some(number) = self.schedule_numbers.get(&schedule) {
            return *number;
        }
        let number = as_number(self.schedules.len());
        self.schedules.push(schedule.clone());
        self.schedule_numbers.insert(schedule, number);
        number
    }

    /// The number of a channel.
    pub(super) fn channel(&mut self, channel: &'a Channel) -> u32 {
        number(&mut self.channel_numbers, &mut self.channels, channel)
    }

    /// The tables, once everything has its number.
    pub(super) fn finish(self) -> Finished {
        Finished {
            tenants: self.tenants.into_iter().cloned().collect(),
            digests: self.digests.into_iter().cloned().collect(),
            schedules: self.schedules,
            channels: self.channels.into_iter().cloned().collect(),
        }
    }
}

fn number<'a, T: std::hash::Hash + Eq>(
    numbers: &mut HashMap<&'a T, u32>,
    table: &mut Vec<&'a T>,
    item: &'a T,
) -> u32 {
    *numbers.entry(item).or_insert_with(|| {
        table.push(item);
        as_number(table.len() - 1)
    })
}

fn as_number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
