//! Putting the parts together, and taking them down in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::Client;
use tidegate_operator_core::index::Home;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::args::Args;
use crate::certificates::{Certificates, Lifetimes, Names};
use crate::events::{self, Events};
use crate::forward::{Forwarder, Peers};
use crate::health::Health;
use crate::leader::Leader;
use crate::metrics::Metrics;
use crate::server::{Closing, listen, serve};
use crate::shutdown::{self, Shutdown};
use crate::status::StatusWriter;
use crate::stream::Streams;
use crate::trust::{ConfigMaps, keep_ca_bundle};
use crate::watch as watches;
use crate::webhook::Webhook;
use crate::world::World;

/// How long servers and Lease may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// Shared by all parts.
struct App {
    args: Args,
    client: Client,
    world: Arc<World>,
    metrics: Metrics,
    certificates: Arc<Certificates>,
    shutdown: Shutdown,
}

/// Runs until a signal. Errors are only those that make it impossible to begin.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("no API server is configured")?;
    let (trigger, shutdown) = shutdown::channel();
    let metrics = Metrics::default();
    let lifetimes = Lifetimes::default();
    let source = Some(args.authority_secret.clone()).filter(|name| !name.is_empty());
    let certificates = Certificates::new(&client, &args.namespace, names(&args), lifetimes, metrics.clone())
        .with_authorities_of(source);
    let delay = Duration::from_secs(args.shutdown_delay);
    let home = Home {
        namespace: args.namespace.clone(),
        port: args.stream_address.port(),
        sidecar_image: args.sidecar_settings().image,
    };
    let world = Arc::new(World::at(home));
    let app = App { args, client, world, metrics, certificates: Arc::new(certificates), shutdown };
    let (events, publisher) =
        events::channel(app.client.clone(), &app.args.pod_name, Arc::clone(&app.world), app.metrics.clone());
    let mut ending = app.servers(events.clone())?;
    let mut background = watches::follow_all(&app.client, &app.world);
    background.spawn(publisher.run());
    app.spawn(&mut background, &mut ending, events);
    shutdown::requested().await.context("signals cannot be received")?;
    tracing::info!("shutting down");
    trigger.leave();
    tokio::time::sleep(delay).await;
    trigger.stop();
    let all = async { while ending.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::warn!("not everything ended in time");
    }
    Ok(())
}

fn names(args: &Args) -> Names {
    let services = |service: &str| match service {
        "" => Vec::new(),
        service => Names::of_service(service, &args.namespace),
    };
    Names { operator: services(&args.operator_service), agent: services(&args.agent_service) }
}

impl App {
    /// Opens the sockets first, so that an address in use is the only thing that is said.
    fn servers(&self, events: Events) -> anyhow::Result<JoinSet<()>> {
        let mut servers = JoinSet::new();
        let (client, world, metrics) = (&self.client, &self.world, &self.metrics);
        let tls = Arc::new(self.certificates.resolver().server_config()?);
        let health = Health {
            world: Arc::clone(world),
            trust: self.certificates.trust(),
            metrics: metrics.clone(),
            shutdown: self.shutdown.clone(),
        };
        let webhook = Webhook::new(
            client.clone(),
            Arc::clone(world),
            self.args.sidecar_settings(),
            self.certificates.trust(),
            metrics.clone(),
        );
        let replicas = (self.args.namespace.clone(), self.args.service_account.clone());
        let streams = Streams::new(
            client.clone(),
            Arc::clone(world),
            events,
            metrics.clone(),
            self.shutdown.clone(),
            replicas,
        );
        let parts = [
            (self.args.health_address, None, health.router(), Closing::Stopped),
            (self.args.webhook_address, Some(Arc::clone(&tls)), webhook.router(), Closing::Leaving),
            (self.args.stream_address, Some(tls), streams.router(), Closing::Stopped),
        ];
        for (address, tls, router, closing) in parts {
            servers.spawn(serve(listen(address)?, tls, router, self.shutdown.clone(), closing));
        }
        Ok(servers)
    }

    fn forwarder(&self, leader: watch::Receiver<Option<String>>) -> Forwarder {
        let args = &self.args;
        let peers = Peers {
            server_name: format!("{}.{}.svc", args.operator_service, args.namespace),
            token_file: args.peer_token.clone(),
        };
        let trust = self.certificates.trust();
        Forwarder::new(peers, Arc::clone(&self.world), leader, trust, self.metrics.clone())
    }

    /// What runs beside the servers; what has to end in order goes to `ending`.
    fn spawn(&self, background: &mut JoinSet<()>, ending: &mut JoinSet<()>, events: Events) {
        let (client, world) = (&self.client, &self.world);
        let leader = Leader::new(
            client.clone(),
            &self.args.namespace,
            &self.args.pod_name,
            self.args.own_address(),
            self.metrics.clone(),
        );
        let leads = leader.leads();
        background.spawn(self.forwarder(leader.other()).run());
        ending.spawn(leader.run(self.shutdown.clone()));

        let certificates = Arc::clone(&self.certificates);
        background.spawn(async move { certificates.run().await });
        let writer = StatusWriter::new(
            client.clone(),
            Arc::clone(world),
            events,
            self.metrics.clone(),
            Instant::now(),
        );
        background.spawn(writer.run(leads.clone()));
        let config_maps = ConfigMaps::new(client.clone(), world, self.certificates.trust());
        background.spawn(config_maps.run(leads));
        let name = &self.args.webhook_configuration;
        background.spawn(keep_ca_bundle::<MutatingWebhookConfiguration>(
            client.clone(),
            name.clone(),
            self.certificates.trust(),
        ));
        background.spawn(keep_ca_bundle::<ValidatingWebhookConfiguration>(
            client.clone(),
            name.clone(),
            self.certificates.trust(),
        ));
    }
}
