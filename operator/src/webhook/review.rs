//! Reading and answering `AdmissionReview`s of version v1.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use k8s_openapi::ByteString;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use serde_json::Value;

/// What the API server asks, with the object exactly as it was sent.
pub(super) struct Asked {
    /// Everything but the object.
    pub(super) request: AdmissionRequest<DynamicObject>,
    /// The object; null when there is none, as on DELETE.
    pub(super) object: Value,
}

/// An answer, or why there can be none.
pub(super) type Reviewed = Result<AdmissionResponse, String>;

/// Reads a body. The object stays apart: types of this version would drop fields that they do not know.
pub(super) fn parse(body: &[u8]) -> Result<Asked, String> {
    let mut review: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    let version = review.get("apiVersion").and_then(Value::as_str);
    if version != Some("admission.k8s.io/v1") {
        return Err(format!("apiVersion is {version:?}: send an AdmissionReview of admission.k8s.io/v1"));
    }
    let object = review.pointer_mut("/request/object").map(Value::take).unwrap_or_default();
    if let Some(old) = review.pointer_mut("/request/oldObject") {
        *old = Value::Null;
    }
    let review: AdmissionReview<DynamicObject> = serde_json::from_value(review)
        .map_err(|error| format!("the body is not an AdmissionReview: {error}"))?;
    let request = review.try_into().map_err(|_| "the AdmissionReview has no request".to_owned())?;
    Ok(Asked { request, object })
}

/// The HTTP answer.
pub(super) fn answer(reviewed: Reviewed) -> Response {
    match reviewed.and_then(|response| written(response).map_err(|error| error.to_string())) {
        Ok(review) => axum::Json(review).into_response(),
        Err(message) => {
            tracing::warn!(message, "bad admission review");
            (StatusCode::BAD_REQUEST, format!("{message}\n")).into_response()
        }
    }
}

/// With the patch in base64, as API servers write the field; byte by byte as a number it would be three times as long.
fn written(mut response: AdmissionResponse) -> serde_json::Result<Value> {
    let patch = response.patch.take().map(ByteString);
    let mut review = serde_json::to_value(response.into_review())?;
    if let Some(patch) = patch {
        review["response"]["patch"] = serde_json::to_value(patch)?;
    }
    Ok(review)
}
