//! The Secrets that hold the authority and the serving certificates. Several replicas agree because each writes
//! only what is newer than what it read: creation and replacement by `resourceVersion` lose against another's.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};

use super::authority::Authority;
use super::pair::Pair;

/// Attempts to write a Secret before the pass is given up; the next pass begins anew.
const ATTEMPTS: usize = 5;

/// What can be kept in a Secret.
pub(super) trait Stored: PartialEq + Default {
    fn read(data: &BTreeMap<String, ByteString>) -> Self;
    fn write(&self) -> BTreeMap<String, ByteString>;
}

impl Stored for Option<Pair> {
    fn read(data: &BTreeMap<String, ByteString>) -> Self {
        pair(data, "tls.crt", "tls.key")
    }

    fn write(&self) -> BTreeMap<String, ByteString> {
        self.iter().flat_map(|pair| entries(pair, "tls.crt", "tls.key")).collect()
    }
}

impl Stored for Authority {
    fn read(data: &BTreeMap<String, ByteString>) -> Self {
        Self {
            current: pair(data, "tls.crt", "tls.key"),
            next: pair(data, "next.crt", "next.key"),
            previous: text(data, "previous.crt").map(|pem| split(&pem)).unwrap_or_default(),
        }
    }

    fn write(&self) -> BTreeMap<String, ByteString> {
        let current = self.current.iter().flat_map(|pair| entries(pair, "tls.crt", "tls.key"));
        let next = self.next.iter().flat_map(|pair| entries(pair, "next.crt", "next.key"));
        let previous =
            (!self.previous.is_empty()).then(|| ("previous.crt".to_owned(), bytes(&self.previous.concat())));
        current.chain(next).chain(previous).collect()
    }
}

/// Reads the Secret, asks what it must hold, writes that when it differs, and returns it.
pub(super) async fn agree<T: Stored>(
    secrets: &Api<Secret>,
    name: &str,
    wanted: impl Fn(&T) -> Result<T, rcgen::Error>,
) -> anyhow::Result<T> {
    for _ in 0..ATTEMPTS {
        let existing =
            secrets.get_opt(name).await.with_context(|| format!("Secret {name} cannot be read"))?;
        let held = existing.as_ref().and_then(|secret| secret.data.as_ref()).map(T::read).unwrap_or_default();
        let wanted =
            wanted(&held).with_context(|| format!("no certificate can be made for Secret {name}"))?;
        if existing.is_some() && wanted == held {
            return Ok(wanted);
        }
        match put(secrets, name, existing, wanted.write()).await {
            Ok(_) => return Ok(wanted),
            // Another replica was faster: read what it wrote.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).with_context(|| format!("Secret {name} cannot be written")),
        }
    }
    bail!("Secret {name} was changed by others {ATTEMPTS} times in a row")
}

/// The certificate and key that a Secret of type `kubernetes.io/tls` holds; none when there is no such Secret.
pub(super) async fn pair_of(secrets: &Api<Secret>, name: &str) -> anyhow::Result<Option<Pair>> {
    let secret = secrets.get_opt(name).await.with_context(|| format!("Secret {name} cannot be read"))?;
    Ok(secret.and_then(|secret| secret.data).and_then(|data| pair(&data, "tls.crt", "tls.key")))
}

async fn put(
    secrets: &Api<Secret>,
    name: &str,
    existing: Option<Secret>,
    data: BTreeMap<String, ByteString>,
) -> kube::Result<Secret> {
    let params = PostParams::default();
    if let Some(secret) = existing {
        return secrets.replace(name, &params, &Secret { data: Some(data), ..secret }).await;
    }
    let labels =
        BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), "tidegate-operator".to_owned())]);
    let secret = Secret {
        metadata: ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() },
        data: Some(data),
        ..Secret::default()
    };
    secrets.create(&params, &secret).await
}

fn pair(data: &BTreeMap<String, ByteString>, certificate: &str, key: &str) -> Option<Pair> {
    Some(Pair { certificate: text(data, certificate)?, key: text(data, key)? })
}

fn entries(pair: &Pair, certificate: &str, key: &str) -> [(String, ByteString); 2] {
    [(certificate.to_owned(), bytes(&pair.certificate)), (key.to_owned(), bytes(&pair.key))]
}

fn text(data: &BTreeMap<String, ByteString>, key: &str) -> Option<String> {
    data.get(key).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
}

fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}

fn split(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END)
        .filter(|part| part.contains(END))
        .map(|part| format!("{}\n", part.trim_start()))
        .collect()
}
