//! The cluster that the commands look into, as its user may see it.

use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use tidegate_crds::{CircuitBreakerPolicy, RateLimitPolicy};
use tidegate_operator_core::index::Index;
use tidegate_operator_core::key::CustomKind;

use crate::command_line::ClusterArguments;
use crate::refused::Refused;

/// An API server that does not take a connection by then is not there.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest answer.
const READ: Duration = Duration::from_secs(30);

/// A connection, and which part of the cluster is meant.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// Of objects that the command line does not place.
    pub(crate) namespace: String,
    /// Where Tidegate is installed.
    pub(crate) install_namespace: String,
}

impl Cluster {
    pub(crate) async fn connect(arguments: &ClusterArguments) -> Result<Self, Refused> {
        let config = config(arguments).await.map_err(|error| {
            Refused::of(format!("no cluster: {error}: write --kubeconfig, or set KUBECONFIG"))
        })?;
        let namespace = arguments.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| Refused::of(said(&error)))?;
        Ok(Self { client, namespace, install_namespace: arguments.install_namespace.clone() })
    }

    /// Every object of a kind, in one namespace or in all of them.
    pub(crate) async fn list<K>(&self, namespace: Option<&str>) -> Result<Vec<K>, Refused>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let kind = K::plural(&());
        let list = api.list(&ListParams::default()).await;
        list.map(|list| list.items).map_err(|error| Refused::of(format!("{kind}: {}", said(&error))))
    }
}

async fn config(arguments: &ClusterArguments) -> Result<Config, Box<dyn Error>> {
    let options = KubeConfigOptions { context: arguments.context.clone(), ..KubeConfigOptions::default() };
    let mut config = match &arguments.kubeconfig {
        Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
        None if options.context.is_some() => Config::from_kubeconfig(&options).await?,
        None => Config::infer().await?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ);
    Ok(config)
}

/// What the API server said, or the outermost and the innermost cause, in one line.
pub(crate) fn said(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let error: &(dyn Error + 'static) = error;
    let last = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source()).last();
    let (first, last) = (error.to_string(), last.map(ToString::to_string).unwrap_or_default());
    if first.contains(&last) { first } else { format!("{first}: {last}") }
}

/// Whether the caller may not do what was asked.
pub(crate) fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// Whether there is no such object.
pub(crate) fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Policies, pods and what ties them together, read once.
pub(crate) struct Inventory {
    pub(crate) index: Index,
    pub(crate) pods: Vec<Pod>,
    pub(crate) rate_limits: Vec<RateLimitPolicy>,
    pub(crate) breakers: Vec<CircuitBreakerPolicy>,
}

impl Inventory {
    /// Reads one namespace, or all of them.
    pub(crate) async fn read(cluster: &Cluster, namespace: Option<&str>) -> Result<Self, Refused> {
        let rate_limits = cluster.list::<RateLimitPolicy>(namespace).await?;
        let breakers = cluster.list::<CircuitBreakerPolicy>(namespace).await?;
        let pods = cluster.list::<Pod>(namespace).await?;
        let services = cluster.list::<Service>(namespace).await?;
        let mut index = Index::new();
        index.reset_services(&services);
        index.reset_rate_limit_policies(&rate_limits);
        index.reset_circuit_breaker_policies(&breakers);
        index.reset_pods(&pods);
        read_pools(cluster, namespace, &mut index).await?;
        Ok(Self { index, pods, rate_limits, breakers })
    }
}

/// `InferencePool`s lead to pods as Services do, where somebody has installed them.
async fn read_pools(cluster: &Cluster, namespace: Option<&str>, index: &mut Index) -> Result<(), Refused> {
    // Whoever may not ask which groups there are is not told of pools, which few clusters have.
    let groups = cluster.client.list_api_groups().await.map(|list| list.groups).unwrap_or_default();
    for kind in [CustomKind::InferencePool, CustomKind::ExperimentalInferencePool] {
        let group = groups.iter().find(|group| group.name == kind.group());
        let version = group.and_then(|group| group.preferred_version.as_ref().or(group.versions.first()));
        let Some(version) = version else { continue };
        let resource = ApiResource {
            group: kind.group().to_owned(),
            version: version.version.clone(),
            api_version: version.group_version.clone(),
            kind: kind.as_str().to_owned(),
            plural: kind.plural().to_owned(),
        };
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
            None => Api::all_with(cluster.client.clone(), &resource),
        };
        match api.list(&ListParams::default()).await {
            Ok(list) => _ = index.reset_custom(kind, &list.items),
            // The group is there without this kind.
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(Refused::of(format!("{}: {}", resource.plural, said(&error)))),
        }
    }
    Ok(())
}

/// Every namespace, or the one.
pub(crate) async fn namespaces(cluster: &Cluster, only: Option<&str>) -> Result<Vec<Namespace>, kube::Error> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    match only {
        Some(name) => Ok(vec![api.get(name).await?]),
        None => Ok(api.list(&ListParams::default()).await?.items),
    }
}
