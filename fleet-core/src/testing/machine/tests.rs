//! The fake engine behaves as engine 20.10 was seen to behave.

use std::time::Duration;

use futures::StreamExt as _;

use crate::ids::{ContainerId, UpdateId, VolumeName};
use crate::model::{Container, RestartPolicy, RunState};
use crate::ports::{
    CandidateRequest, ContainerRuntime as _, CreateRequest, EngineEventKind, GuardOwner,
    GuardRequest, ImageStore as _, NoProgress, PortErrorKind,
};
use crate::testing::{
    Boot, FakeHost, Fault, FaultPlan, Files, ForeignMove, Move, ROWS, SCHEMA, StopManner, Workload,
    image, instance,
};
use crate::time::Timestamp;

const SECOND: Duration = Duration::from_secs(1);

fn host() -> FakeHost {
    let host = FakeHost::new(1);
    host.load(image("app:1"));
    host
}

fn update() -> UpdateId {
    UpdateId::new(Timestamp::UNIX_EPOCH, [1; 10])
}

fn see(host: &FakeHost, name: &str) -> Container {
    host.container(name).expect("the container is there")
}

/// Runs a call to its end.
fn done<T>(host: &FakeHost, call: impl Future<Output = T>) -> T {
    host.drive(call).expect("nobody dies here")
}

fn candidate(host: &FakeHost, of: &ContainerId, tag: &str) -> CreateRequest {
    let release = host.load(image(tag));
    let engine = host.engine();
    let image_id = done(host, engine.image(&release.image.by_digest()))
        .unwrap()
        .unwrap()
        .id;
    CreateRequest::Candidate(Box::new(CandidateRequest {
        update: update(),
        name: "candidate".to_owned(),
        frozen: done(host, engine.freeze(of)).unwrap(),
        image_id,
        image: tag.to_owned(),
        repoint: Vec::new(),
    }))
}

#[test]
fn names_belong_to_dead_containers_too() {
    let host = host();
    let web = host.run(instance("web"));
    let other = host.run(instance("other").stopped());
    let engine = host.engine();
    let taken = done(&host, engine.rename(&web, "other")).unwrap_err();
    assert_eq!(taken.kind(), PortErrorKind::Conflict);
    done(&host, engine.rename(&web, "web")).unwrap();
    done(&host, engine.remove(&other)).unwrap();
    done(&host, engine.remove(&other)).unwrap();
    done(&host, engine.rename(&web, "other")).unwrap();
    let gone = done(&host, engine.rename(&other, "x")).unwrap_err();
    assert!(gone.is_not_found());
    let busy = done(&host, engine.remove(&web)).unwrap_err();
    assert_eq!(busy.kind(), PortErrorKind::Conflict);
}

#[test]
fn a_stop_takes_its_time_and_ends_the_process() {
    for (manner, grace, code, took) in [
        (StopManner::Obeys(SECOND), None, Some(0), SECOND),
        (StopManner::Ignores, None, Some(137), 10 * SECOND),
        (StopManner::Ignores, Some(3 * SECOND), Some(137), 3 * SECOND),
    ] {
        let host = FakeHost::new(1);
        host.load(image("app:1").runs(Workload {
            stop: manner,
            ..Workload::healthy("1")
        }));
        let web = host.run(instance("web"));
        let engine = host.engine();
        let stopped = done(&host, engine.stop(&web, grace)).unwrap();
        assert_eq!(stopped.exit_code, code, "{manner:?}");
        let web = see(&host, "web");
        assert_eq!((web.state, web.pid), (RunState::Exited, 0));
        assert_eq!(
            web.finished_at.unwrap().since(web.started_at.unwrap()),
            took
        );
    }
}

#[test]
fn a_stop_goes_on_when_nobody_waits_for_it() {
    let host = host();
    let web = host.run(instance("web"));
    let engine = host.engine();
    host.set_faults(FaultPlan::once(1, Fault::Lose(PortErrorKind::Timeout)));
    let lost = done(&host, engine.stop(&web, None)).unwrap_err();
    assert!(lost.outcome_unknown());
    assert_eq!(see(&host, "web").state, RunState::Running);
    // A start while it is still stopping says yes and starts nothing.
    assert!(done(&host, engine.start(&web)).unwrap().running);
    host.pass(SECOND);
    assert_eq!(see(&host, "web").state, RunState::Exited);
}

#[test]
fn a_process_that_cannot_be_killed_times_out() {
    let host = FakeHost::new(1);
    host.load(image("app:1").runs(Workload {
        stop: StopManner::Unkillable,
        ..Workload::healthy("1")
    }));
    let web = host.run(instance("web"));
    let stuck = done(&host, host.engine().stop(&web, None)).unwrap_err();
    assert_eq!(stuck.kind(), PortErrorKind::Timeout);
    assert_eq!(see(&host, "web").state, RunState::Running);
}

/// Whether a container is up after the engine was away, by its policy.
#[track_caller]
fn check_restart(policy: RestartPolicy, stopped: bool, kill: bool, up: bool) {
    let host = host();
    // Old enough that no start is lost with the engine.
    host.run(instance("web").restart(policy));
    host.pass(60 * SECOND);
    if stopped {
        let web = see(&host, "web").id;
        done(&host, host.engine().stop(&web, None)).unwrap();
    }
    let down_for = SECOND;
    host.happen(if kill {
        Move::EngineKill { down_for }
    } else {
        Move::EngineRestart { down_for }
    });
    host.pass(2 * SECOND);
    let running = see(&host, "web").state == RunState::Running;
    assert_eq!(running, up, "{policy:?} stopped={stopped} kill={kill}");
}

#[test]
fn an_engine_restart_does_what_was_seen() {
    use RestartPolicy::{Always, No, UnlessStopped};
    for kill in [false, true] {
        check_restart(No, false, kill, false);
        check_restart(No, true, kill, false);
        check_restart(Always, false, kill, true);
        // The trap: stopped through the API, and back.
        check_restart(Always, true, kill, true);
        check_restart(UnlessStopped, true, kill, false);
    }
    check_restart(UnlessStopped, false, false, true);
    check_restart(UnlessStopped, false, true, false);
}

#[test]
fn with_live_restore_the_same_process_goes_on() {
    let host = host();
    host.set_live_restore(true);
    host.run(instance("web").restart(RestartPolicy::No));
    let before = see(&host, "web");
    host.happen(Move::EngineKill { down_for: SECOND });
    host.pass(2 * SECOND);
    let after = see(&host, "web");
    assert_eq!((after.pid, after.state), (before.pid, RunState::Running));
}

#[test]
fn a_kill_just_after_a_start_may_leave_an_orphan_that_writes_on() {
    let orphans = (0..40).filter(|seed| {
        let host = FakeHost::new(*seed);
        host.load(image("app:1"));
        let web = host.run(instance("web").restart(RestartPolicy::No));
        host.happen(Move::EngineKill { down_for: SECOND });
        host.pass(2 * SECOND);
        let engine = host.engine();
        let orphan = done(&host, engine.orphan(&web)).unwrap().is_some();
        if orphan {
            let seen = see(&host, "web");
            assert_eq!((seen.started_at, seen.state), (None, RunState::Created));
            let refused = done(&host, engine.start(&web)).unwrap_err();
            assert_eq!(refused.kind(), PortErrorKind::Failed);
            done(&host, engine.stop(&web, None)).unwrap();
            done(&host, engine.remove(&web)).unwrap();
            let rows = host.files("web-data").unwrap()[ROWS].len();
            host.pass(SECOND);
            assert!(host.files("web-data").unwrap()[ROWS].len() > rows);
            assert!(done(&host, engine.orphan(&web)).unwrap().is_some());
        }
        orphan
    });
    let count = orphans.count();
    assert!((20..40).contains(&count), "{count} of 40");
}

#[test]
fn auto_remove_takes_the_container_and_its_anonymous_volumes() {
    let host = FakeHost::new(1);
    let seeded = Files::from([("seed".to_owned(), b"1".to_vec())]);
    host.load(image("app:1").volume("/anon", seeded));
    let web = host.run(instance("web").auto_remove());
    assert_eq!(host.volumes().len(), 2);
    let engine = host.engine();
    let refused = done(&host, engine.set_restart_policy(&web, RestartPolicy::No)).unwrap_err();
    assert_eq!(refused.kind(), PortErrorKind::Conflict);
    let _ = done(&host, engine.stop(&web, None));
    assert_eq!(host.container("web"), None);
    assert_eq!(host.volumes(), [VolumeName::new("web-data").unwrap()]);
}

#[test]
fn a_candidate_shares_the_volumes_and_leaves_the_tag_alone() {
    let host = FakeHost::new(1);
    let seeded = Files::from([("seed".to_owned(), b"1".to_vec())]);
    host.load(image("app:1").volume("/anon", seeded));
    let web = host.run(instance("web"));
    let tags = host.tags();
    let request = candidate(&host, &web, "app:2");
    let engine = host.engine();
    let created = done(&host, engine.create(&request)).unwrap();
    assert_eq!(created.new_volumes, []);
    assert_eq!(host.tags()["app:1"], tags["app:1"]);
    let (old, new) = (see(&host, "web"), see(&host, "candidate"));
    assert_eq!(old.mounts, new.mounts);
    assert_eq!(new.restart_policy, RestartPolicy::No);
    assert_ne!(old.image_id, new.image_id);
    let again = done(&host, engine.create(&request)).unwrap();
    assert_eq!(again.id, created.id, "taken up, not made twice");
    let CreateRequest::Candidate(mut other) = request else {
        unreachable!("made as a candidate")
    };
    other.update = UpdateId::new(Timestamp::UNIX_EPOCH, [2; 10]);
    let other = CreateRequest::Candidate(other);
    let taken = done(&host, engine.create(&other)).unwrap_err();
    assert_eq!(taken.kind(), PortErrorKind::Conflict);
}

#[test]
fn a_published_port_is_taken_only_once() {
    let host = host();
    let web = host.run(instance("web").host_port(8080));
    let request = candidate(&host, &web, "app:2");
    let engine = host.engine();
    let new = done(&host, engine.create(&request)).unwrap().id;
    let refused = done(&host, engine.start(&new)).unwrap_err();
    assert_eq!(refused.kind(), PortErrorKind::Failed);
    assert_eq!(see(&host, "candidate").started_at, None);
    done(&host, engine.stop(&web, None)).unwrap();
    assert!(done(&host, engine.start(&new)).unwrap().running);
}

#[test]
fn a_program_that_exits_or_is_missing_shows_at_the_start() {
    for (boot, expect) in [
        (Boot::Exits(3), Ok((false, Some(3)))),
        (Boot::NoSuchBinary, Err(PortErrorKind::Invalid)),
    ] {
        let host = host();
        let web = host.run(instance("web"));
        let engine = host.engine();
        done(&host, engine.stop(&web, None)).unwrap();
        host.load(image("app:2").runs(Workload {
            boot,
            ..Workload::healthy("2")
        }));
        let frozen = done(&host, engine.freeze(&web)).unwrap();
        let request = CreateRequest::Candidate(Box::new(CandidateRequest {
            update: update(),
            name: "candidate".to_owned(),
            frozen,
            image_id: host.tags()["app:2"].clone(),
            image: "app:2".to_owned(),
            repoint: Vec::new(),
        }));
        let new = done(&host, engine.create(&request)).unwrap().id;
        let started = done(&host, engine.start(&new));
        let seen = started
            .map(|outcome| (outcome.running, see(&host, "candidate").exit_code))
            .map_err(|error| error.kind());
        assert_eq!(seen, expect);
    }
}

#[test]
fn a_prune_takes_all_that_nothing_running_holds() {
    let host = host();
    let web = host.run(instance("web").network("front"));
    let engine = host.engine();
    done(&host, engine.stop(&web, None)).unwrap();
    host.happen(Move::Prune);
    assert_eq!((host.containers(), host.volumes()), (vec![], vec![]));
    assert!(host.tags().is_empty());
}

#[test]
fn a_guard_keeps_volumes_image_and_networks() {
    let host = host();
    let web = host.run(instance("web").network("front"));
    let engine = host.engine();
    let guard = CreateRequest::Guard(Box::new(GuardRequest {
        owner: GuardOwner::Update(update()),
        name: "fleet-guard-1".to_owned(),
        image_id: host.tags()["app:1"].clone(),
        volumes: vec![VolumeName::new("web-data").unwrap()],
        networks: vec!["front".to_owned()],
        default_network: false,
        containers: 1,
    }));
    done(&host, engine.create(&guard)).unwrap();
    done(&host, engine.stop(&web, None)).unwrap();
    let rows = host.files("web-data");
    host.happen(Move::Prune);
    assert_eq!(host.container("web"), None);
    assert_eq!(host.files("web-data"), rows);
    assert!(host.tags().contains_key("app:1"));
    assert!(done(&host, engine.image("app:1")).unwrap().is_some());
}

#[test]
fn a_network_made_again_is_another_one() {
    let host = host();
    let web = host.run(instance("web").network("front"));
    let engine = host.engine();
    let frozen = done(&host, engine.freeze(&web)).unwrap();
    done(&host, engine.stop(&web, None)).unwrap();
    host.machine().networks.remove("front");
    assert!(done(&host, engine.reattach(&web, &frozen)).is_err());
    host.make_network("front");
    let refused = done(&host, engine.start(&web)).unwrap_err();
    assert_eq!(refused.kind(), PortErrorKind::NotFound);
    done(&host, engine.reattach(&web, &frozen)).unwrap();
    assert!(done(&host, engine.start(&web)).unwrap().running);
}

#[test]
fn a_pull_needs_the_registry_and_the_platform() {
    let host = host();
    let engine = host.engine();
    let release = host.publish(image("app:2"));
    let arm = host.publish(image("arm:1").architecture("arm64"));
    let platform = crate::testing::engine::linux_amd64();
    let pulled = done(&host, engine.pull(&release.image, &platform, &NoProgress)).unwrap();
    assert!(pulled.repo_tags.is_empty());
    assert_eq!(pulled.repo_digests, [release.image.by_digest()]);
    let refused = done(&host, engine.pull(&arm.image, &platform, &NoProgress)).unwrap_err();
    assert_eq!(refused.kind(), PortErrorKind::Invalid);
}

#[test]
fn events_tell_of_others_and_end_with_the_engine() {
    let host = host();
    host.run(instance("web"));
    let engine = host.engine();
    let events = done(&host, engine.events()).unwrap();
    host.happen(Move::Foreign(ForeignMove::Rename(
        "web".to_owned(),
        "theirs".to_owned(),
    )));
    host.happen(Move::EngineRestart { down_for: SECOND });
    let kinds: Vec<EngineEventKind> =
        done(&host, events.map(|event| event.unwrap().kind).collect());
    use EngineEventKind::{Die, Kill, Rename};
    assert_eq!(kinds, [Rename, Kill, Die]);
}

#[test]
fn a_workload_writes_at_its_start_and_while_it_runs() {
    let host = host();
    let web = host.run(instance("web"));
    host.pass(SECOND);
    let files = host.files("web-data").unwrap();
    assert_eq!(files[SCHEMA], b"1");
    assert!(files[ROWS].len() >= 16);
    let engine = host.engine();
    done(&host, engine.stop(&web, None)).unwrap();
    let rows = host.files("web-data");
    host.pass(SECOND);
    assert_eq!(host.files("web-data"), rows);
}

#[test]
fn a_dead_process_does_nothing_more() {
    let host = host();
    let web = host.run(instance("web"));
    let engine = host.engine();
    // Places of a rename: before the effect, after it.
    for (site, name) in [(1, "web"), (2, "renamed")] {
        host.set_faults(FaultPlan::death(site));
        assert!(host.drive(engine.rename(&web, "renamed")).is_none());
        assert_eq!(see(&host, name).id, web);
    }
}

#[test]
fn a_crashing_program_is_restarted_with_growing_pauses() {
    let host = FakeHost::new(1);
    host.load(image("app:1").runs(Workload::crasher("1")));
    host.run(instance("web").restart(RestartPolicy::OnFailure { max_retries: 3 }));
    for _ in 0..100 {
        host.pass(SECOND / 10);
    }
    let web = see(&host, "web");
    assert_eq!((web.restart_count, web.state), (3, RunState::Exited));
}
