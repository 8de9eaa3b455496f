//! `compile`: from policies to the document of one pod.

use std::collections::BTreeSet;
use std::path::Path;

use tidegate_operator_core::index::Index;
use tidegate_operator_core::merge::{Candidate, merge};
use tidegate_policy::PolicyDocument;

use crate::command_line::{CompileArguments, PolicyArguments};
use crate::objects::{self, Objects, Policy, PolicyObject};
use crate::refused::Refused;

const DEFAULT_NAMESPACE: &str = "default";

pub(crate) fn run(arguments: &CompileArguments) -> Result<String, Refused> {
    let document = document(&arguments.policies)?;
    serde_json::to_string_pretty(&document).map_err(Refused::of)
}

/// The document of the pod that the arguments mean.
pub(crate) fn document(arguments: &PolicyArguments) -> Result<PolicyDocument, Refused> {
    let namespace = arguments.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let mut objects = objects::load(&arguments.filenames, namespace)?;
    if let Some(file) = &arguments.pod {
        let pods = objects::load(std::slice::from_ref(file), namespace)?.pods;
        return of_pod(&objects, file, &pods);
    }
    if arguments.namespace.is_some() {
        objects.policies.retain(|policy| policy.compiled.key.namespace == namespace);
    }
    of_any_pod(&objects.policies)
}

fn of_pod(objects: &Objects, file: &Path, pods: &[objects::PodObject]) -> Result<PolicyDocument, Refused> {
    let [pod] = pods else {
        let message = format!("{}: {} pods: write one", file.display(), pods.len());
        return Err(Refused::of(message));
    };
    let namespace = pod.pod.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let document = index(objects).document_for_new_pod(namespace, &pod.pod);
    Ok(document.map_or_else(PolicyDocument::default, |document| document.as_ref().clone()))
}

/// An index of everything that the files hold but the pods.
pub(crate) fn index(objects: &Objects) -> Index {
    let mut index = Index::new();
    index.reset_services(&objects.services);
    for policy in &objects.policies {
        match &policy.object {
            PolicyObject::RateLimit(policy) => index.apply_rate_limit_policy(policy),
            PolicyObject::CircuitBreaker(policy) => index.apply_circuit_breaker_policy(policy),
        };
    }
    index
}

/// All policies together, as if each selected the pod in the way that it selects its pods.
fn of_any_pod(policies: &[Policy]) -> Result<PolicyDocument, Refused> {
    let namespaces: BTreeSet<&str> =
        policies.iter().map(|policy| policy.compiled.key.namespace.as_str()).collect();
    if policies.is_empty() {
        return Err(Refused::of("no policy in the files: write a RateLimitPolicy or a CircuitBreakerPolicy"));
    }
    if namespaces.len() > 1 {
        let names = namespaces.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!("policies of the namespaces {names} never meet: choose one with --namespace");
        return Err(Refused::of(message));
    }
    let candidates = policies.iter().map(|policy| Candidate {
        policy: &policy.compiled,
        specificity: policy.compiled.target.specificity(),
        created: policy.object.created(),
    });
    Ok(merge(candidates.collect()).document)
}
