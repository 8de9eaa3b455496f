//! What hooks are sent: a `CloudEvent` 1.0 in JSON's structured mode.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::json;
use tidegate_policy::HookEvent;
use tidegate_policy::report::{BreakerState, BreakerStatus};

/// The event of a change from one state to another.
pub(super) fn body(breaker: &BreakerStatus, from: BreakerState, to: BreakerState, on: HookEvent) -> Bytes {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let event = json!({
        "specversion": "1.0",
        // The time in front: a restarted worker counts from 0 again.
        "id": format!("{}-{number}", since_epoch.as_nanos()),
        "source": format!("/tidegate/{}", host()),
        "type": match on {
            HookEvent::Opened => "dev.tidegate.breaker.opened",
            HookEvent::HalfOpened => "dev.tidegate.breaker.halfopened",
            HookEvent::Closed => "dev.tidegate.breaker.closed",
        },
        "subject": breaker.policy,
        "time": rfc3339(since_epoch),
        "datacontenttype": "application/json",
        "data": {
            "policy": breaker.policy,
            "mode": breaker.mode,
            "from": from.as_str(),
            "to": to.as_str(),
            "reason": breaker.last_trigger_reason,
            "failureRatio": breaker.failure_ratio,
            "consecutiveFailures": breaker.consecutive_failures,
            "halfOpenInMillis": breaker.half_open_in_millis,
        },
    });
    Bytes::from(event.to_string())
}

/// In a cluster the name of the pod.
fn host() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() }
    })
}

/// UTC. The date by Howard Hinnant's `civil_from_days`.
fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), text);
        }
    }
}
