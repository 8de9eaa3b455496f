//! What the sidecar tells of single requests.

use anyhow::Result;
use clap::Args;

use crate::request_log::Settings;
use crate::trace::Target;

/// Traces, and what the log tells.
#[derive(Debug, Clone, Args)]
pub struct SeeingArgs {
    /// A collector that takes OTLP over HTTP; without one nothing is traced
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Header fields for the collector, such as authorization=Bearer%20x; better given as the variable, which other
    /// processes can't read
    #[arg(
        long,
        value_name = "LIST",
        env = "OTEL_EXPORTER_OTLP_HEADERS",
        default_value = "",
        hide_env_values = true
    )]
    pub otlp_headers: String,
    /// Share of the requests that are traced, of those whose caller says nothing about it
    #[arg(long, value_name = "RATIO", env = "OTEL_TRACES_SAMPLER_ARG", default_value_t = 0.01, value_parser = ratio)]
    pub trace_ratio: f64,
    /// Name of the service that is guarded, in traces and in the log
    #[arg(long, value_name = "NAME", env = "OTEL_SERVICE_NAME", default_value = "tidegate-sidecar")]
    pub service_name: String,
    /// Attributes of everything that is traced, such as k8s.pod.name=llama-0
    #[arg(long, value_name = "LIST", env = "OTEL_RESOURCE_ATTRIBUTES", default_value = "")]
    pub resource_attributes: String,
    /// Share of the admitted requests that have a line in the log, as every refused one has
    #[arg(long, value_name = "RATIO", env = "TIDEGATE_LOG_ADMITTED", default_value_t = 0.0, value_parser = ratio)]
    pub log_admitted: f64,
}

impl SeeingArgs {
    /// Where spans go, if anywhere.
    pub fn target(&self) -> Result<Option<Target>> {
        // An empty variable is none, as OpenTelemetry has it.
        let endpoint = self.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
        let target = |endpoint| {
            Target::new(endpoint, &self.otlp_headers, &self.service_name, &self.resource_attributes)
        };
        endpoint.map(target).transpose()
    }

    /// How decisions are told.
    pub fn log(&self) -> Settings {
        Settings { service: self.service_name.clone(), admitted: self.log_admitted }
    }
}

fn ratio(value: &str) -> Result<f64, String> {
    let ratio = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "write a share from 0 to 1, such as 0.01".to_owned())
}
