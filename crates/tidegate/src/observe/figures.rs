//! `/metrics`: counters and histograms in the OpenMetrics text format. Labels come from the catalog and from routes,
//! whose number is bounded; never from a tenant, a user or a path as it was sent.

use domain::{
    entry::Cause,
    id::{FeatureKey, MeterKey, PlanKey},
};
use engine::{
    Engine,
    ports::{Decided, Observer},
};
use forecast::Score;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, LabelSetEncoder, text},
    metrics::{
        counter::{ConstCounter, Counter},
        family::{Family, MetricConstructor},
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};
use std::{
    fmt,
    sync::{Arc, Weak, atomic::AtomicU64},
    time::{Duration, SystemTime},
};
use wire::v1::snapshots::SnapshotSummary;
use workers::foresight::Foreseen;

/// Upper bounds of request durations in seconds, as OpenTelemetry's HTTP conventions have them.
const DURATION_BUCKETS_S: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// What tells decisions apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DecisionLabels {
    cause: Cause,
    plan: PlanKey,
    code: &'static str,
    meter: Option<MeterKey>,
    feature: Option<FeatureKey>,
}

impl EncodeLabelSet for DecisionLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let labels = [
            ("door", self.cause.word()),
            ("plan", self.plan.as_str()),
            ("code", self.code),
            ("meter", self.meter.as_ref().map_or("", MeterKey::as_str)),
            ("feature", self.feature.as_ref().map_or("", FeatureKey::as_str)),
        ];
        labels.encode(encoder)
    }
}

/// What tells requests apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RequestLabels {
    door: &'static str,
    method: &'static str,
    route: Arc<str>,
    status: u16,
}

impl EncodeLabelSet for RequestLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let status = self.status.to_string();
        let labels = [
            ("door", self.door),
            ("http_request_method", self.method),
            ("http_route", &self.route),
            ("http_response_status_code", status.as_str()),
        ];
        labels.encode(encoder)
    }
}

#[derive(Clone)]
struct NewHistogram;

impl MetricConstructor<Histogram> for NewHistogram {
    fn new_metric(&self) -> Histogram {
        Histogram::new(DURATION_BUCKETS_S)
    }
}

/// Every figure of the process.
pub struct Figures {
    registry: Registry,
    decisions: Family<DecisionLabels, Counter>,
    denials: Family<DecisionLabels, Counter>,
    shadow_denials: Family<DecisionLabels, Counter>,
    durations: Family<RequestLabels, Histogram, NewHistogram>,
    catalog_reloads: Counter,
    catalog_reloads_refused: Counter,
    upkeep_failures: Counter,
    refused_by_outage: Counter,
    unsettled: Counter,
    /// Whether the history behind a forecast was in memory.
    forecast_cache: Family<[(&'static str, &'static str); 1], Counter>,
    forecasts: ForecastFigures,
    days_closed: Counter,
    day_closed_at: Gauge,
    day_duration: Gauge<f64, AtomicU64>,
    day_tenants_done: Gauge,
    day_tenants_failed: Gauge,
}

/// How forecasts did, by meter: nothing else tells them apart.
#[derive(Default)]
struct ForecastFigures {
    tenants: Gauge,
    judged: Counter,
    void: Counter,
    scored: Family<[(&'static str, String); 1], Gauge>,
    coverage: Family<[(&'static str, String); 1], Gauge<f64, AtomicU64>>,
    error_days: Family<[(&'static str, String); 1], Gauge<f64, AtomicU64>>,
    precision: Family<[(&'static str, String); 1], Gauge<f64, AtomicU64>>,
    recall: Family<[(&'static str, String); 1], Gauge<f64, AtomicU64>>,
}

impl ForecastFigures {
    fn register(&self, registry: &mut Registry) {
        registry.register("forecast_tenants", "Tenants whose forecasts the last night made", self.tenants.clone());
        registry.register("forecasts_judged", "Forecasts judged when their day had come", self.judged.clone());
        let help = "Forecasts that could not be judged: the limit was another by then, or days were missing";
        registry.register("forecasts_void", help, self.void.clone());
        registry.register("forecast_scored", "Forecasts that the score of a meter is made of", self.scored.clone());
        let help = "Share of the intervals that held what came; 0.8 is what they promise";
        registry.register("forecast_interval_coverage_ratio", help, self.coverage.clone());
        registry.register("forecast_error_days", "Mean error of the date in days", self.error_days.clone());
        let help = "Share of the alerts that were right";
        registry.register("forecast_alert_precision_ratio", help, self.precision.clone());
        let help = "Share of what was worth an alert that had one";
        registry.register("forecast_alert_recall_ratio", help, self.recall.clone());
    }

    fn set(&self, scores: &[(MeterKey, Score)]) {
        for (meter, score) in scores {
            let label = [("meter", meter.as_str().to_owned())];
            self.scored.get_or_create(&label).set(i64::try_from(score.count).unwrap_or(i64::MAX));
            let shares = [
                (&self.coverage, score.coverage()),
                (&self.error_days, score.mean_error_days()),
                (&self.precision, score.precision()),
                (&self.recall, score.recall()),
            ];
            for (family, share) in shares {
                if let Some(share) = share {
                    family.get_or_create(&label).set(share);
                }
            }
        }
    }
}

impl Figures {
    /// Figures of a node with this engine.
    pub fn new(engine: &Arc<Engine>) -> Self {
        let mut figures = Self {
            registry: Registry::with_prefix("tidegate"),
            decisions: Family::default(),
            denials: Family::default(),
            shadow_denials: Family::default(),
            durations: Family::new_with_constructor(NewHistogram),
            catalog_reloads: Counter::default(),
            catalog_reloads_refused: Counter::default(),
            upkeep_failures: Counter::default(),
            refused_by_outage: Counter::default(),
            unsettled: Counter::default(),
            forecast_cache: Family::default(),
            forecasts: ForecastFigures::default(),
            days_closed: Counter::default(),
            day_closed_at: Gauge::default(),
            day_duration: Gauge::default(),
            day_tenants_done: Gauge::default(),
            day_tenants_failed: Gauge::default(),
        };
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let registry = &mut figures.registry;
        registry.register("build", "The running version", build);
        registry.register("decisions", "Decisions made", figures.decisions.clone());
        registry.register("denials", "Decisions that refused", figures.denials.clone());
        let help = "Decisions that would have refused, had the limit been hard or enforcement on";
        registry.register("shadow_denials", help, figures.shadow_denials.clone());
        registry.register_with_unit(
            "http_server_request_duration",
            "From the head of a request to the end of its answer",
            Unit::Seconds,
            figures.durations.clone(),
        );
        let help = "Requests the gateway refused because the ledger could not answer";
        registry.register("gateway_outage_refusals", help, figures.refused_by_outage.clone());
        let help = "Charges the gateway could not give back or record afterwards";
        registry.register("gateway_unsettled", help, figures.unsettled.clone());
        figures.forecasts.register(registry);
        let help = "Forecasts answered, by whether their history was in memory";
        registry.register("forecast_cache", help, figures.forecast_cache.clone());
        registry.register("catalog_reloads", "Catalogs put in force", figures.catalog_reloads.clone());
        let help = "Catalogs refused by SIGHUP; the one before stayed in force";
        registry.register("catalog_reloads_refused", help, figures.catalog_reloads_refused.clone());
        registry.register("upkeep_failures", "Rounds of upkeep that failed", figures.upkeep_failures.clone());
        registry.register("snapshot_runs", "Days that this node closed, or tried to", figures.days_closed.clone());
        let help = "When this node last closed a day whole, seconds since 1970";
        registry.register_with_unit("snapshot_last_success", help, Unit::Seconds, figures.day_closed_at.clone());
        let help = "How long the last closing of a day took";
        registry.register_with_unit("snapshot_last_duration", help, Unit::Seconds, figures.day_duration.clone());
        let help = "Tenants of the last closed day all of whose meters are there";
        registry.register("snapshot_tenants_done", help, figures.day_tenants_done.clone());
        let help = "Tenants of the last closed day that lack a meter";
        registry.register("snapshot_tenants_failed", help, figures.day_tenants_failed.clone());
        registry.register_collector(Box::new(EngineFigures(Arc::downgrade(engine))));
        figures
    }

    /// All of them, as text.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        // Writing into a String can't fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    fn request_ended(&self, door: &'static str, method: &'static str, route: &str, status: u16, took: Duration) {
        let labels = RequestLabels { door, method, route: route.into(), status };
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A catalog was put in force, or refused.
    pub fn catalog_reloaded(&self, accepted: bool) {
        if accepted {
            self.catalog_reloads.inc()
        } else {
            self.catalog_reloads_refused.inc()
        };
    }

    /// A night's forecasts were made; how those of each meter did so far.
    pub fn foreseen(&self, foreseen: &Foreseen, scores: &[(MeterKey, Score)]) {
        self.forecasts.tenants.set(i64::try_from(foreseen.tenants).unwrap_or(i64::MAX));
        self.forecasts.judged.inc_by(foreseen.judged);
        self.forecasts.void.inc_by(foreseen.void);
        self.forecasts.set(scores);
    }

    /// The closing of a day ended.
    pub fn day_closed(&self, summary: &SnapshotSummary) {
        self.days_closed.inc();
        if summary.complete {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.day_closed_at.set(now.as_secs() as i64);
        }
        self.day_duration.set(summary.took_ms as f64 / 1e3);
        self.day_tenants_done.set(summary.tenants_done as i64);
        self.day_tenants_failed.set(summary.tenants_failed as i64);
    }

    /// A round of upkeep failed.
    pub fn upkeep_failed(&self) {
        self.upkeep_failures.inc();
    }
}

impl api::ApiObserver for Figures {
    fn answered(&self, method: &http::Method, route: &str, status: u16, took: Duration) {
        self.request_ended("api", known_method(method), route, status, took);
    }
    fn foreseen(&self, was_held: bool) {
        let result = if was_held { "hit" } else { "miss" };
        self.forecast_cache.get_or_create(&[("result", result)]).inc();
    }
    fn metrics_text(&self) -> String {
        self.text()
    }
}

impl gateway::GatewayObserver for Figures {
    fn finished(&self, finished: &gateway::Finished<'_>) {
        // The name of a route holds its method.
        self.request_ended("gateway", "", finished.route.unwrap_or("unmatched"), finished.status, finished.duration);
    }
    fn refused_by_outage(&self) {
        self.refused_by_outage.inc();
    }
    fn unsettled(&self, _what: &'static str) {
        self.unsettled.inc();
    }
}

impl Observer for Figures {
    fn decided(&self, decided: &Decided<'_>) {
        let labels = DecisionLabels {
            cause: decided.cause,
            plan: decided.plan.clone(),
            code: decided.code.word(),
            meter: decided.meter.cloned(),
            feature: decided.feature.cloned(),
        };
        if decided.shadow {
            self.shadow_denials.get_or_create(&labels).inc();
            return;
        }
        if decided.code != domain::decision::Code::Allowed {
            self.denials.get_or_create(&labels).inc();
        }
        self.decisions.get_or_create(&labels).inc();
    }
}

/// The methods that may be a label.
fn known_method(method: &http::Method) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"]
        .into_iter()
        .find(|known| method == known)
        .unwrap_or("_OTHER")
}

/// The engine's and the ledger's own figures, read when they are asked for.
struct EngineFigures(Weak<Engine>);

impl fmt::Debug for EngineFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineFigures")
    }
}

impl Collector for EngineFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(engine) = self.0.upgrade() else { return Ok(()) };
        let stats = engine.stats();
        let ledger = stats.ledger;
        let seconds = |us: u64| us as f64 / 1e6;
        let counters = [
            ("ledger_commits", "Group commits made", ledger.commits),
            ("ledger_commit_failures", "Group commits that failed", ledger.commit_failures),
            ("ledger_entries", "Entries committed", ledger.entries),
            ("ledger_checkpoint_rows", "Folds written", ledger.checkpoint_rows),
            ("ledger_id_disk_reads", "Look-ups of ids that read the disk", ledger.id_disk_reads),
            ("engine_recoveries", "Times the ledger was opened anew after a failure", stats.recoveries),
        ];
        for (name, help, value) in counters {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        let times = [
            ("ledger_commit_time", "Time spent in group commits", seconds(ledger.commit_us)),
            ("ledger_checkpoint_time", "Time spent writing folds", seconds(ledger.checkpoint_us)),
        ];
        for (name, help, value) in times {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), metric.metric_type())?)?;
        }
        let outage = stats.outage.unwrap_or_default();
        let counters = [
            ("outage_passed", "Charges that open limits let through while PostgreSQL was away", outage.passed),
            ("outage_refused", "Requests refused on what was known while PostgreSQL was away", outage.refused),
            (
                "outage_closed",
                "Requests told to come again while PostgreSQL was away, since a limit was closed or its allowance used up",
                outage.closed,
            ),
            ("outage_reconciled", "Charges of outages that were recorded afterwards", outage.reconciled),
            ("outage_duplicates", "Charges of outages that PostgreSQL had already", outage.duplicates),
            ("outage_set_aside", "Charges of outages that could not be recorded", outage.set_aside),
        ];
        for (name, help, value) in counters.into_iter().filter(|_| stats.outage.is_some()) {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        let gauges = [
            ("outage_under_way", "1 while requests are decided without PostgreSQL", u64::from(outage.under_way)),
            ("outage_spool_lines", "Charges in the spool that are not recorded yet", outage.spool_lines),
        ];
        for (name, help, value) in gauges.into_iter().filter(|_| stats.outage.is_some()) {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        let healthy = u64::from(engine.healthy().is_ok());
        let gauges = [
            ("ledger_healthy", "1 while the ledger can be written", healthy),
            ("ledger_position", "The last durable position of the journal", ledger.committed_seq),
            ("ledger_queue_entries", "Entries that wait for a commit", ledger.queue_entries),
            ("ledger_tail_entries", "Entries after the last checkpoint", ledger.tail_entries),
            ("ledger_recent_ids", "Ids held in memory", ledger.recent_ids),
            ("ledger_id_runs", "Sealed runs of ids", ledger.id_runs),
            ("ledger_filter_bytes", "Memory of the filters of ids", ledger.filter_bytes),
            ("ledger_file_bytes", "Size of the file and its log", ledger.file_bytes),
            ("engine_tenants_in_memory", "Tenants held in memory", stats.tenants_in_memory),
            ("engine_users_in_memory", "Users held in memory", stats.users_in_memory),
            ("catalog_version", "The version of the catalog in force", u64::from(stats.catalog_version)),
        ];
        for (name, help, value) in gauges {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        let longest = ConstGauge::new(seconds(ledger.commit_max_us));
        let help = "The longest group commit since the start";
        longest.encode(encoder.encode_descriptor(
            "ledger_commit_longest",
            help,
            Some(&Unit::Seconds),
            longest.metric_type(),
        )?)
    }
}
