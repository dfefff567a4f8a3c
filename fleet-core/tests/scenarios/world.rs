//! The fleet in which stories take place.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::engine::rollout::{
    Command, Detected, Orchestrator, Outlook, RolloutView, StartRequest, Started,
};
use fleet_core::ids::{InstanceId, InstanceName, RolloutId, TenantId};
use fleet_core::image::{Digest, ImageRef, PinnedImage};
use fleet_core::model::labels::LabelMode;
use fleet_core::model::{Pause, UpdateConfig};
use fleet_core::plan::rollout::{SupersedePolicy, UpdateEnd};
use fleet_core::plan::strategy::{StrategyRegistry, StrategySpec, WaveSize};
use fleet_core::plan::{Asked, Held, PlannerSettings, RolloutPlan, render};
use fleet_core::ports::{Clock as _, Entropy, RolloutStore as _};
use fleet_core::record::{Event, EventKind};
use fleet_core::testing::{FakeEntropy, FakeUpdater, MemoryStore, Nature, PausedClock, candidate};
use fleet_core::time::{Timestamp, parse_duration};
use futures::future::{Either, select};

use crate::script::Line;

type Daemon = Pin<Box<dyn Future<Output = ()>>>;

/// How often the daemon looks by itself.
const TICK: Duration = Duration::from_secs(30);

pub(crate) struct World {
    clock: PausedClock,
    store: MemoryStore,
    fleet: FakeUpdater,
    entropy: Arc<dyn Entropy>,
    orchestrator: Arc<Orchestrator>,
    daemon: Option<Daemon>,
    rollouts: Vec<RolloutId>,
    told: u64,
}

fn duration(text: &str) -> Duration {
    parse_duration(text).unwrap_or_else(|error| panic!("{error}"))
}

fn instance(name: &str) -> InstanceId {
    InstanceId::local(InstanceName::new(name).unwrap())
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn image(text: &str) -> PinnedImage {
    let image: ImageRef = format!("registry.example/{text}").parse().unwrap();
    image.pinned(Digest::of(text.as_bytes()))
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = PausedClock::new(Timestamp::UNIX_EPOCH);
        let store = MemoryStore::new();
        let fleet = FakeUpdater::new(Arc::new(clock.clone()));
        let entropy: Arc<dyn Entropy> = Arc::new(FakeEntropy::default());
        let orchestrator = Self::orchestrator(&clock, &store, &fleet, &entropy);
        Self {
            clock,
            store,
            fleet,
            entropy,
            orchestrator,
            daemon: None,
            rollouts: Vec::new(),
            told: 0,
        }
    }

    fn orchestrator(
        clock: &PausedClock,
        store: &MemoryStore,
        fleet: &FakeUpdater,
        entropy: &Arc<dyn Entropy>,
    ) -> Arc<Orchestrator> {
        Arc::new(Orchestrator::new(
            Arc::new(store.clone()),
            Arc::new(fleet.clone()),
            Arc::new(clock.clone()),
            Arc::clone(entropy),
            StrategyRegistry::default(),
        ))
    }

    /// Plays one command; returns its direct answer.
    pub(crate) async fn play(&mut self, line: &Line<'_>) -> String {
        match line.word(0) {
            "now" => self.clock.jump_to(line.word(1).parse().unwrap()),
            "tenants" => self.add_tenants(line.word(1).parse().unwrap()),
            "instance" => self.add_instance(line),
            "tenant" => self.fleet.tenant(tenant(line.word(1)), config(line)),
            "setting" => self.set(line),
            "release" => self.fleet.release(image(line.word(1)).digest, nature(line)),
            "registry" => self.fleet.registry(line.word(1) == "up"),
            "disk" => self.fleet.disk_full(line.word(1) == "full"),
            "fleet" => self.hold_fleet(line),
            "plan" => return self.plan(line).await,
            "start" => return self.start(&request(line)).await,
            "ask" => return self.ask(line).await,
            "detect" => return self.detect(line).await,
            "retry" => return self.retry(line).await,
            "run" => self.run(duration(line.word(1))).await,
            "kill" => self.kill(),
            "wait" => return self.wait().await,
            "show" => return self.show().await,
            _ => return self.steer(line).await,
        }
        String::new()
    }

    fn add_tenants(&mut self, count: usize) {
        for number in 1..=count {
            self.fleet.add(candidate(
                &format!("app-{number:02}"),
                &format!("t{number:02}"),
            ));
        }
    }

    fn add_instance(&mut self, line: &Line<'_>) {
        let name = line.word(1);
        let mut new = candidate(name, line.option("tenant").unwrap_or(name));
        new.mode = match line.option("mode") {
            None | Some("auto") => Some(LabelMode::Auto),
            Some("manual") => Some(LabelMode::Manual),
            Some("notify") => Some(LabelMode::Notify),
            Some("off") => Some(LabelMode::Off),
            Some(other) => panic!("expected a mode, found {other}"),
        };
        new.window = line.option("window").map(str::to_owned);
        new.cohort = line.option("cohort").map(str::to_owned);
        new.healthy = !line.is("unhealthy");
        new.own = line.is("own");
        new.estimate = line.option("estimate").map(duration).or(new.estimate);
        self.fleet.add_slow(
            new,
            line.option("takes")
                .map_or(Duration::from_secs(30), duration),
        );
    }

    fn set(&mut self, line: &Line<'_>) {
        for (key, value) in &line.options {
            self.fleet.settings(|settings| {
                drop(
                    settings
                        .values
                        .insert((*key).to_owned(), (*value).to_owned()),
                )
            });
        }
    }

    fn hold_fleet(&mut self, line: &Line<'_>) {
        let since = self.clock.now();
        let pause = (line.word(1) == "pause").then(|| Pause {
            by: line.option("by").unwrap_or("operator").to_owned(),
            reason: line.option("why").unwrap_or("no reason given").to_owned(),
            since,
        });
        self.fleet.settings(|settings| settings.pause = pause);
        self.orchestrator.wake();
    }

    async fn plan(&self, line: &Line<'_>) -> String {
        match self.orchestrator.preview(request(line)).await {
            Ok(plan) => render(&plan, &self.planner_settings().freezes, self.clock.now()),
            Err(error) => format!("refused: {error}"),
        }
    }

    fn planner_settings(&self) -> PlannerSettings {
        let mut read = PlannerSettings::default();
        self.fleet
            .settings(|settings| read = PlannerSettings::read(settings).unwrap());
        read
    }

    async fn start(&mut self, request: &StartRequest) -> String {
        match self.orchestrator.start(request.clone()).await {
            Ok(started) => self.opened(&started),
            Err(error) => format!("refused: {error}"),
        }
    }

    async fn ask(&mut self, line: &Line<'_>) -> String {
        let mut request = StartRequest::new(line.option("by").unwrap(), image(line.word(2)));
        request.asked = Asked::ForInstances {
            names: vec![InstanceName::new(line.word(1)).unwrap()],
        };
        request.strategy = StrategySpec::named("single");
        self.start(&request).await
    }

    async fn detect(&mut self, line: &Line<'_>) -> String {
        let now = self.clock.now();
        let request = StartRequest {
            actor: "fleet".to_owned(),
            ..request(line)
        };
        let detected = self.orchestrator.detected(request, None, now, quiet_none());
        match detected.await {
            Ok(Detected::Started(started)) => self.opened(&started),
            Ok(Detected::Decided(decision)) => self.aliased(&decision.to_string()),
            Err(error) => format!("refused: {error}"),
        }
    }

    async fn retry(&mut self, line: &Line<'_>) -> String {
        let id = self.rollout(line);
        let by = line.option("by").unwrap_or("operator");
        match self.orchestrator.retry_failed(&id, by).await {
            Ok(started) => self.opened(&started),
            Err(error) => format!("refused: {error}"),
        }
    }

    fn opened(&mut self, started: &Started) -> String {
        let held = |plan: &RolloutPlan| {
            plan.held
                .iter()
                .filter(|held| held.why != Held::NotInScope)
                .map(|held| format!("not {}: {}\n", held.instance, held.why))
                .collect::<String>()
        };
        match started {
            Started::Opened(plan) => {
                self.rollouts.push(plan.id());
                let sizes: Vec<String> = (0..plan.waves.len())
                    .map(|wave| {
                        plan.wave_range(u32::try_from(wave).unwrap())
                            .len()
                            .to_string()
                    })
                    .collect();
                format!(
                    "r{}: {} instances in waves of {}\n{}",
                    self.rollouts.len(),
                    plan.total(),
                    sizes.join(", "),
                    held(plan)
                )
            }
            Started::NothingToDo(plan) => format!("nothing to do\n{}", held(plan)),
        }
    }

    fn rollout(&self, line: &Line<'_>) -> RolloutId {
        match line
            .option("rollout")
            .and_then(|alias| alias.strip_prefix('r'))
        {
            Some(number) => self.rollouts[number.parse::<usize>().unwrap() - 1],
            None => *self.rollouts.last().expect("a rollout to steer"),
        }
    }

    async fn steer(&mut self, line: &Line<'_>) -> String {
        let why = line.option("why").unwrap_or("no reason given").to_owned();
        let command = match line.word(0) {
            "approve" => Command::Approve,
            "deny" => Command::Deny { why },
            "pause" => Command::Pause { why },
            "resume" => Command::Resume,
            "promote" => Command::Promote,
            "abort" => Command::Abort {
                why,
                rollback: line.is("rollback"),
            },
            "exclude" => Command::Exclude {
                instance: instance(line.word(1)),
            },
            other => panic!("expected a command of a story, found {other:?}"),
        };
        let by = line.option("by").unwrap_or("operator");
        match self
            .orchestrator
            .command(&self.rollout(line), &command, by)
            .await
        {
            Ok(_) => String::new(),
            Err(error) => format!("refused: {error}"),
        }
    }

    /// The daemon works for so long; what is in flight then stays in flight.
    async fn run(&mut self, time: Duration) {
        let daemon = self
            .daemon
            .take()
            .unwrap_or_else(|| daemon(Arc::clone(&self.orchestrator)));
        let clock = self.clock.clone();
        match select(daemon, clock.sleep(time)).await {
            Either::Left(((), _)) => panic!("a daemon does not end"),
            Either::Right(((), daemon)) => self.daemon = Some(daemon),
        }
    }

    fn kill(&mut self) {
        self.daemon = None;
        self.orchestrator =
            Self::orchestrator(&self.clock, &self.store, &self.fleet, &self.entropy);
        self.fleet.recover();
    }

    async fn wait(&mut self) -> String {
        let id = *self.rollouts.last().expect("a rollout to wait for");
        let waited = self.orchestrator.wait(&id).await.unwrap();
        match waited.outlook {
            Outlook::NotNow { why, until } => {
                let until = until.map_or(String::new(), |at| format!(", until {at}"));
                self.aliased(&format!("not now{until}: {}", why.join("; ")))
            }
            _ => format!("over: {}", waited.rollout.state.phase.label()),
        }
    }

    async fn show(&self) -> String {
        let id = *self.rollouts.last().expect("a rollout to show");
        let text = RolloutView::new(&self.orchestrator.load(&id).await.unwrap()).to_string();
        self.aliased(&text)
    }

    /// What became known since the last command: events of rollouts, and what instances went through, in order of time.
    pub(crate) fn happenings(&mut self) -> Vec<String> {
        let events = self.store.events();
        let mut all: Vec<(Timestamp, u8, String)> = Vec::new();
        let told = self.told;
        for event in events.iter().filter(|event| event.sequence > told) {
            self.note_child(event);
            // Planning was the answer to a command.
            if event.event.kind != EventKind::RolloutPlanned {
                all.push((event.event.at, 1, self.worded(event)));
            }
        }
        self.told = events.last().map_or(0, |event| event.sequence);
        all.extend(
            self.fleet
                .take_log()
                .into_iter()
                .map(|(at, text)| (at, if text.contains(" begins") { 2 } else { 0 }, text)),
        );
        // At the same instant: what ended, what follows, what begins.
        all.sort_by_key(|(at, rank, _)| (*at, *rank));
        all.into_iter()
            .map(|(at, _, text)| format!("{} {text}", time_of_day(at)))
            .collect()
    }

    /// A rollback gets its name when it comes to be.
    fn note_child(&mut self, event: &Event) {
        if let Some(id) = event.event.rollout.filter(|id| !self.rollouts.contains(id)) {
            self.rollouts.push(id);
        }
    }

    fn worded(&self, Event { event, .. }: &Event) -> String {
        let rollout = event.rollout.map(|id| id.to_string()).unwrap_or_default();
        let instance = event
            .instance
            .as_ref()
            .map(|id| format!(" {id}"))
            .unwrap_or_default();
        let data: Vec<String> = match &event.data {
            serde_json::Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| {
                    format!(
                        "{key}={}",
                        value
                            .as_str()
                            .map_or_else(|| value.to_string(), str::to_owned)
                    )
                })
                .collect(),
            _ => Vec::new(),
        };
        let actor = if event.actor == "fleet" {
            String::new()
        } else {
            format!(" by {}", event.actor)
        };
        self.aliased(&format!(
            "{rollout} {}{instance}{actor}: {}",
            event.kind.label(),
            data.join(", ")
        ))
    }

    fn aliased(&self, text: &str) -> String {
        self.rollouts
            .iter()
            .enumerate()
            .fold(text.to_owned(), |text, (number, id)| {
                text.replace(&id.to_string(), &format!("r{}", number + 1))
            })
    }

    /// What must hold whatever the story: no rollout fails more instances than it may, none exceeds its concurrency.
    pub(crate) async fn check(&self) {
        let ends = self.fleet.ends();
        for stored in self.store.list(1000).await.unwrap() {
            let counted = |end: &Option<UpdateEnd>| matches!(end, Some(UpdateEnd::Unsuccessful { kind, .. }) if kind.counts());
            let failed: BTreeSet<&InstanceId> = ends
                .iter()
                .filter(|(order, end)| order.rollout == stored.plan.id() && counted(end))
                .map(|(order, _)| &order.instance)
                .filter(|instance| {
                    stored
                        .plan
                        .members
                        .iter()
                        .any(|it| it.instance == **instance && !it.unhealthy_before)
                })
                .collect();
            let limit = stored.plan.budget.limit.get() as usize;
            assert!(
                failed.len() <= limit,
                "{failed:?} failed, at most {limit} may"
            );
            assert!(
                stored.plan.request.limits.max_concurrent as usize >= self.fleet.in_flight_max()
                    || self.rollouts.len() > 1
            );
        }
    }
}

fn daemon(orchestrator: Arc<Orchestrator>) -> Daemon {
    Box::pin(async move {
        let mut woken = orchestrator.woken();
        loop {
            orchestrator.run_due().await.unwrap();
            orchestrator.idle(&mut woken, TICK).await;
        }
    })
}

fn quiet_none() -> SupersedePolicy {
    SupersedePolicy {
        quiet_period: Duration::ZERO,
        ..SupersedePolicy::default()
    }
}

fn time_of_day(at: Timestamp) -> String {
    // "2026-01-05T12:00:00Z": the day and the time are enough for a story.
    let text = at.to_string();
    format!("{} {}", &text[8..10], &text[11..19])
}

fn config(line: &Line<'_>) -> UpdateConfig {
    UpdateConfig {
        mode: line.option("mode").unwrap().parse().unwrap(),
        preferred_hour_utc: line.option("hour").map_or(3, |hour| hour.parse().unwrap()),
        windows: line
            .option("window")
            .map(str::to_owned)
            .into_iter()
            .collect(),
    }
}

fn nature(line: &Line<'_>) -> Nature {
    let names = |key| {
        line.list(key)
            .into_iter()
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
    };
    match (line.option("bad"), line.option("stuck")) {
        (Some("all"), _) => Nature::Bad,
        (Some(_), _) => Nature::BadOn(names("bad")),
        (None, Some(_)) => Nature::StuckOn(names("stuck")),
        (None, None) => Nature::Good,
    }
}

fn request(line: &Line<'_>) -> StartRequest {
    let mut request =
        StartRequest::new(line.option("by").unwrap_or("operator"), image(line.word(1)));
    request.strategy = StrategySpec::named(line.option("strategy").unwrap_or("rolling"));
    if let StrategySpec::Rolling(rolling) = &mut request.strategy {
        let number = |text: &str| text.parse::<u64>().unwrap();
        if let Some(percent) = line.option("percent") {
            rolling.size = WaveSize::percent(number(percent)).unwrap();
        }
        if let Some(count) = line.option("count") {
            rolling.size = WaveSize::count(number(count)).unwrap();
        }
        rolling.pause = line.option("pause").map_or(rolling.pause, duration);
    }
    if let Some(failures) = line.option("abort-on") {
        request.strategy = request
            .strategy
            .with_abort_on(failures.parse().unwrap())
            .unwrap();
    }
    if let Some(concurrent) = line.option("concurrent") {
        request.limits.max_concurrent = concurrent.parse().unwrap();
    }
    request.asked = Asked::ByOperator {
        tenants: line.list("tenants").into_iter().map(tenant).collect(),
    };
    request.override_window = line.is("override");
    request.needs_approval = line.is("approval");
    request
}
