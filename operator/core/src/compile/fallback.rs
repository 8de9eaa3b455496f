//! What answers in place of an engine.

use tidegate_crds::{self as crd, CircuitBreakerPolicySpec, FallbackTarget};
use tidegate_policy::{
    AnswerCache, Destination, Fallback, FallbackOn, Fallbacks, Hook, HookEvent, HookMode, HttpUrl,
    RelativePath, StaticAnswer,
};

use super::problems::{Problems, optional};
use super::scalar::{bytes, count, count32, is_label, millis};

const MOST_TARGETS: usize = 8;

/// `namespace`: that of the policy.
#[allow(clippy::option_option)] // the outer one is the verdict, the inner one the field
pub(super) fn fallbacks(
    namespace: &str,
    spec: &CircuitBreakerPolicySpec,
    problems: &mut Problems,
) -> Option<Option<Fallbacks>> {
    let Some(fallback) = &spec.fallback else { return Some(None) };
    if spec.fallback_endpoint.is_some() {
        problems.add("spec.fallbackEndpoint", CircuitBreakerPolicySpec::ONE_FALLBACK);
    }
    if fallback.on.is_empty() {
        problems.add(
            "spec.fallback.on",
            "never: write Open, ConnectFailure, Timeout, Failure or several of them",
        );
    }
    if !(1..=MOST_TARGETS).contains(&fallback.to.len()) {
        let message = format!("{} are out of range: write 1 to {MOST_TARGETS}", fallback.to.len());
        problems.add("spec.fallback.to", message);
    }
    let to: Vec<Option<Fallback>> = fallback
        .to
        .iter()
        .enumerate()
        .map(|(i, to)| target(&format!("spec.fallback.to[{i}]"), namespace, to, problems))
        .collect();
    Some(Some(Fallbacks {
        on: fallback.on.iter().map(|on| when(*on)).collect(),
        to: to.into_iter().collect::<Option<_>>()?,
    }))
}

const fn when(on: crd::FallbackOn) -> FallbackOn {
    match on {
        crd::FallbackOn::Open => FallbackOn::Open,
        crd::FallbackOn::ConnectFailure => FallbackOn::ConnectFailure,
        crd::FallbackOn::Timeout => FallbackOn::Timeout,
        crd::FallbackOn::Failure => FallbackOn::Failure,
    }
}

fn target(field: &str, namespace: &str, to: &FallbackTarget, problems: &mut Problems) -> Option<Fallback> {
    let FallbackTarget { path, url, service, model, static_answer, cache } = to;
    let here = (path.is_some() || model.is_some()) && url.is_none() && service.is_none();
    let named = [url.is_some(), service.is_some(), static_answer.is_some(), cache.is_some(), here];
    if named.into_iter().filter(|named| *named).count() != 1 || (url.is_some() && path.is_some()) {
        problems.add(field, FallbackTarget::ONE);
        return None;
    }
    if let Some(answer) = static_answer {
        return fixed(&format!("{field}.static"), answer, problems).map(Fallback::Static);
    }
    if let Some(cache) = cache {
        return kept(&format!("{field}.cache"), cache, problems).map(Fallback::Cache);
    }
    let path = optional(path.as_ref(), |path| {
        let path = RelativePath::new(path).map_err(|error| error.to_string());
        problems.keep(format!("{field}.path"), path)
    });
    let url = optional(url.as_ref(), |url| {
        let url = HttpUrl::new(url).map_err(|error| error.to_string());
        problems.keep(format!("{field}.url"), url)
    });
    let by_service = optional(service.as_ref(), |service| {
        self::service(&format!("{field}.service"), namespace, service, problems)
    });
    match (path?, url?.or(by_service?), model.clone()) {
        (Some(path), None, None) => Some(Fallback::Path(path)),
        (path, url, model) => {
            Some(Fallback::Send(Destination { url, in_cluster: service.is_some(), path, model }))
        }
    }
}

/// Those who are told of changes.
pub(super) fn hooks(namespace: &str, specs: &[crd::Hook], problems: &mut Problems) -> Option<Vec<Hook>> {
    if specs.len() > MOST_TARGETS {
        problems.add("spec.hooks", format!("{} are too many: write at most {MOST_TARGETS}", specs.len()));
    }
    let hooks: Vec<Option<Hook>> = specs
        .iter()
        .enumerate()
        .map(|(i, spec)| {
            let earlier = specs[..i].iter().any(|other| other.name == spec.name);
            hook(&format!("spec.hooks[{i}]"), namespace, spec, earlier, problems)
        })
        .collect();
    hooks.into_iter().collect()
}

fn hook(
    field: &str,
    namespace: &str,
    spec: &crd::Hook,
    earlier: bool,
    problems: &mut Problems,
) -> Option<Hook> {
    if !is_label(&spec.name, |c| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        problems.add(format!("{field}.name"), format!("{:?} is {}", spec.name, crd::Hook::NAME));
    }
    if earlier {
        problems
            .add(format!("{field}.name"), format!("{:?} is there twice: write each name once", spec.name));
    }
    if spec.on.is_empty() {
        problems.add(format!("{field}.on"), "never: write Opened, HalfOpened, Closed or several of them");
    }
    let url = match (&spec.url, &spec.service, &spec.path) {
        (Some(url), None, None) => {
            let url = HttpUrl::new(url).map_err(|error| error.to_string());
            problems.keep(format!("{field}.url"), url)?
        }
        (None, Some(service), path) => {
            let server = self::service(&format!("{field}.service"), namespace, service, problems)?;
            let path = RelativePath::new(path.as_deref().unwrap_or("/")).map_err(|error| error.to_string());
            let path = problems.keep(format!("{field}.path"), path)?;
            let url = HttpUrl::new(&format!("{}{}", server.as_str(), path.as_str()));
            problems.keep(format!("{field}.path"), url.map_err(|error| error.to_string()))?
        }
        _ => {
            problems.add(field, crd::Hook::ONE);
            return None;
        }
    };
    let mode = match spec.mode {
        crd::HookMode::Sync => HookMode::Sync,
        crd::HookMode::Async => HookMode::Async,
    };
    let event = |event: &crd::HookEvent| match event {
        crd::HookEvent::Opened => HookEvent::Opened,
        crd::HookEvent::HalfOpened => HookEvent::HalfOpened,
        crd::HookEvent::Closed => HookEvent::Closed,
    };
    Some(Hook { name: spec.name.clone(), url, mode, on: spec.on.iter().map(event).collect() })
}

/// Its name in the cluster's DNS, which every pod's search list completes.
fn service(
    field: &str,
    namespace: &str,
    service: &crd::FallbackService,
    problems: &mut Problems,
) -> Option<HttpUrl> {
    let namespace = service.namespace.as_deref().unwrap_or(namespace);
    let name = is_label(&service.name, |c| c.is_ascii_lowercase());
    if !name {
        problems.add(
            format!("{field}.name"),
            format!("{:?} is {}", service.name, CircuitBreakerPolicySpec::SERVICE),
        );
    }
    let known = is_label(namespace, |c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if !known {
        problems.add(
            format!("{field}.namespace"),
            format!("{namespace:?} is {}", crd::FallbackService::NAMESPACE),
        );
    }
    let port = problems.keep(format!("{field}.port"), count(service.port.into(), 1, 65535))?;
    HttpUrl::new(&format!("http://{}.{namespace}.svc:{port}", service.name)).ok().filter(|_| name && known)
}

fn fixed(field: &str, answer: &crd::StaticAnswer, problems: &mut Problems) -> Option<StaticAnswer> {
    let status = problems.keep(format!("{field}.status"), count(answer.status.into(), 200, 599));
    Some(StaticAnswer {
        status: u16::try_from(status?).ok()?,
        content_type: answer.content_type.clone(),
        body: answer.body.clone(),
    })
}

fn kept(field: &str, cache: &crd::AnswerCache, problems: &mut Problems) -> Option<AnswerCache> {
    let ttl = problems.keep(format!("{field}.ttl"), millis(&cache.ttl));
    let entries = problems.keep(format!("{field}.maxEntries"), count32(cache.max_entries, 1, 100_000));
    let bytes = bytes(&cache.max_bytes).and_then(|bytes| {
        let fits = (64 << 10..=1 << 30).contains(&bytes);
        fits.then_some(bytes).ok_or_else(|| format!("{} is out of range: write 64Ki to 1Gi", cache.max_bytes))
    });
    let bytes = problems.keep(format!("{field}.maxBytes"), bytes);
    Some(AnswerCache { ttl_millis: ttl?, max_entries: entries?, max_bytes: bytes? })
}
