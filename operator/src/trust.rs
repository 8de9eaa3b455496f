//! Bringing the CA bundle to those who have to check our certificates: the API server, by the `caBundle` of the
//! webhook configurations, and the sidecars, by a `ConfigMap` in their namespace.

mod config_maps;
mod webhook_configurations;

#[cfg(test)]
mod tests;

pub(crate) use config_maps::ConfigMaps;
pub(crate) use webhook_configurations::keep_ca_bundle;
