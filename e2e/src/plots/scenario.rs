//! What happens to the tiers in each plot.

/// A course of load.
#[derive(Debug)]
pub(super) struct Scenario {
    /// As in the file's name.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) minutes: u64,
    /// From which minute on it is drawn: before that the tiers learn.
    pub(super) from_minute: u64,
    /// Load at a minute, 1 as usual.
    pub(super) load: fn(f64) -> f64,
    /// When the engine hangs and is started again, in minutes: from, to.
    pub(super) restart: Option<(f64, f64)>,
}

impl Scenario {
    /// Whether the engine is down.
    pub(super) fn is_down(&self, minute: f64) -> bool {
        self.restart.is_some_and(|(from, to)| (from..to).contains(&minute))
    }
}

fn between(minute: f64, from: f64, to: f64, load: f64) -> f64 {
    if (from..to).contains(&minute) { load } else { 1.0 }
}

/// Every plot.
pub(super) const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "step",
        title: "A step: three times the load for three minutes",
        minutes: 16,
        from_minute: 6,
        load: |minute| between(minute, 8.0, 11.0, 3.0),
        restart: None,
    },
    Scenario {
        name: "ramp",
        title: "A ramp: up to four times the load within forty minutes",
        minutes: 65,
        from_minute: 5,
        load: |minute| between(minute, 10.0, 50.0, 1.0 + 3.0 * (minute - 10.0) / 40.0),
        restart: None,
    },
    Scenario {
        name: "spike",
        title: "A spike: five times the load for five seconds",
        minutes: 12,
        from_minute: 7,
        load: |minute| between(minute, 8.0, 8.0 + 5.0 / 60.0, 5.0),
        restart: None,
    },
    Scenario {
        name: "leak",
        title: "A slow leak: a third more every hour",
        minutes: 300,
        from_minute: 5,
        load: |minute| if minute < 15.0 { 1.0 } else { 1.0 + (minute - 15.0) / 180.0 },
        restart: None,
    },
    Scenario {
        name: "night",
        title: "An idle night: four hours without a request",
        minutes: 360,
        from_minute: 5,
        load: |minute| between(minute, 60.0, 300.0, 0.0),
        restart: None,
    },
    Scenario {
        name: "restart",
        title: "A restart: the engine hangs for a minute and loads for another",
        minutes: 22,
        from_minute: 6,
        load: |_| 1.0,
        restart: Some((10.0, 12.0)),
    },
];
