//! What ran on an instance before what runs now, by its finished updates.

use std::collections::BTreeSet;

use super::{Outcome, UpdateState};
use crate::ids::InstanceId;
use crate::image::Digest;
use crate::ports::StoredUpdate;

/// Digests and image ids that an instance ran before its last committed update, for
/// [`crate::detect::Known::with_former`]. `history` is newest first.
#[must_use]
pub fn former_digests(instance: &InstanceId, history: &[StoredUpdate]) -> BTreeSet<Digest> {
    let committed = history
        .iter()
        .filter(|update| update.outcome == Some(Outcome::Committed));
    let mut digests = BTreeSet::new();
    for (age, update) in committed.enumerate() {
        let members = &update.plan.members;
        let Some(at) = members
            .iter()
            .position(|member| &member.instance == instance)
        else {
            continue;
        };
        let target = members[at].target.as_ref().filter(|_| age > 0);
        digests.extend(target.map(|target| target.image.digest.clone()));
        let state = UpdateState::replay(update.plan.clone(), &update.entries);
        let facts = state.members.get(at).map(|member| &member.facts);
        let frozen = facts.and_then(|facts| facts.frozen.as_ref());
        digests.extend(frozen.and_then(|f| f.container.image_id.as_str().parse::<Digest>().ok()));
    }
    digests
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{InstanceName, SnapshotId, TenantId, UpdateId};
    use crate::model::{FrozenSpec, HealthSpec, Release, SnapshotChoice};
    use crate::ports::ContainerRuntime as _;
    use crate::testing::{FakeHost, image, instance};
    use crate::time::Timestamp;
    use crate::update::{Entry, Facts, MemberPlan, Phase, Step, UpdatePlan};

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn frozen(host: &FakeHost) -> FrozenSpec {
        host.load(image("app:1"));
        let id = host.run(instance("web"));
        host.drive(async { host.engine().freeze(&id).await.unwrap() })
            .unwrap()
    }

    fn update(
        instance: &InstanceId,
        frozen: &FrozenSpec,
        to: &str,
        outcome: Outcome,
    ) -> StoredUpdate {
        let release = Release {
            image: "app:1"
                .parse::<crate::image::ImageRef>()
                .unwrap()
                .pinned(digest(to)),
            platform_digest: digest(to),
            config_digest: None,
            local: None,
            pushed_at: None,
            size_bytes: 0,
            annotations: Default::default(),
        };
        let member = MemberPlan {
            instance: instance.clone(),
            tenant: TenantId::new("t").unwrap(),
            container: frozen.container.id.clone(),
            target: Some(release),
            image: "app:1".to_owned(),
            health: HealthSpec::default(),
            stop_grace: None,
            snapshot: SnapshotChoice::All,
            snapshot_id: SnapshotId::new(Timestamp::UNIX_EPOCH, [0; 10]),
            pre_hook: None,
            post_hook: None,
            before: None,
            discard_writable_layer: false,
        };
        let facts = Facts {
            frozen: Some(frozen.clone()),
            ..Facts::default()
        };
        let phase = Phase::Done {
            step: Step::Freeze,
            output: serde_json::to_value(facts).unwrap(),
        };
        StoredUpdate {
            plan: UpdatePlan {
                saga: UpdatePlan::SAGA,
                id: UpdateId::new(Timestamp::UNIX_EPOCH, [0; 10]),
                actor: "test".to_owned(),
                rollout: None,
                members: vec![member],
                keep_snapshots: 1,
                snapshot_max_age: None,
                shared_guard: None,
            },
            created_at: Timestamp::UNIX_EPOCH,
            boot_id: String::new(),
            entries: vec![Entry {
                at: Timestamp::UNIX_EPOCH,
                member: 0,
                phase,
            }],
            outcome: Some(outcome),
            volumes_dirty: false,
            closed: true,
        }
    }

    #[test]
    fn what_ran_before_the_last_commit_is_former_and_what_failed_is_not() {
        let host = FakeHost::new(1);
        let frozen = frozen(&host);
        let web = InstanceId::local(InstanceName::new("web").unwrap());
        let history = [
            update(&web, &frozen, "failed", Outcome::RolledBack),
            update(&web, &frozen, "3", Outcome::Committed),
            update(&web, &frozen, "2", Outcome::Committed),
        ];
        let before_fleet: Digest = frozen.container.image_id.as_str().parse().unwrap();
        assert_eq!(
            former_digests(&web, &history),
            BTreeSet::from([digest("2"), before_fleet])
        );
        let other = InstanceId::local(InstanceName::new("other").unwrap());
        assert!(former_digests(&other, &history).is_empty());
    }
}
