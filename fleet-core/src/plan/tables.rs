//! Numbers for what many instances of a plan share.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;

use super::rollout_plan::ScheduleSpec;
use crate::ids::TenantId;
use crate::image::Digest;
use crate::model::{Channel, TenantMode, UpdateConfig};

/// What a plan's tables are made of. Each tenant is looked up once for each of its instances, and its config only once.
#[derive(Debug)]
pub(super) struct Tables<'a> {
    tenants: Vec<&'a TenantId>,
    entries: Vec<TenantEntry<'a>>,
    /// Places of the entries. Small: what is looked up for each instance must stay in the processor's caches.
    entry_places: HashTable<u32>,
    hasher: RandomState,
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
    name: &'a str,
    /// Its place among all that are known.
    pub(super) place: u32,
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
        let mut tables = Self {
            tenants: Vec::with_capacity(configs.len()),
            entries: Vec::with_capacity(configs.len()),
            entry_places: HashTable::with_capacity(configs.len()),
            hasher: RandomState::new(),
            digests: Vec::new(),
            digest_numbers: HashMap::new(),
            last_digest: None,
            schedules: Vec::new(),
            schedule_numbers: HashMap::new(),
            channels: Vec::new(),
            channel_numbers: HashMap::new(),
        };
        // Once for all of them, in their order: to look for each when it is seen takes longer.
        for (tenant, config) in configs {
            let place = tables.place_of(tenant);
            let entry = &mut tables.entries[place as usize];
            entry.config = Some(config);
            entry.mode = Some(config.mode);
        }
        tables
    }

    /// The place of a tenant. With many tenants it is far away in memory: several looked up one after the other are
    /// fetched at the same time.
    pub(super) fn place_of(&mut self, tenant: &'a TenantId) -> u32 {
        let Self {
            entries,
            entry_places,
            hasher,
            ..
        } = self;
        let name = tenant.as_str();
        let known = entry_places.entry(
            hasher.hash_one(name),
            |&place| entries[place as usize].name == name,
            |&place| hasher.hash_one(entries[place as usize].name),
        );
        *known
            .or_insert_with(|| {
                let place = as_number(entries.len());
                entries.push(TenantEntry {
                    name,
                    place,
                    number: UNSEEN,
                    config: None,
                    mode: None,
                    schedule: None,
                });
                place
            })
            .get()
    }

    /// What is known of a tenant of which there is an instance.
    pub(super) fn tenant(&mut self, place: u32, tenant: &'a TenantId) -> TenantEntry<'a> {
        let entry = &mut self.entries[place as usize];
        if entry.number == UNSEEN {
            entry.number = as_number(self.tenants.len());
            self.tenants.push(tenant);
        }
        *entry
    }

    /// What a tenant says for its instances.
    pub(super) fn remember_schedule(&mut self, place: u32, schedule: u32) {
        self.entries[place as usize].schedule = Some(schedule);
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
