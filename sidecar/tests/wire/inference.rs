//! The messages of engines that speak gRPC, as far as tests need them, by the numbers of their definitions.

use bytes::Bytes;
use prost::Message;

pub(crate) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
pub(crate) const STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
pub(crate) const GENERATE: &str = "/vllm.grpc.engine.VllmEngine/Generate";

/// `inference.InferParameter`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Parameter {
    #[prost(int64, optional, tag = "2")]
    pub(crate) int64_param: Option<i64>,
}

/// An input or an output of a model.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tensor {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(crate) shape: Vec<i64>,
}

/// `inference.ModelInferRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct InferRequest {
    #[prost(string, tag = "1")]
    pub(crate) model_name: String,
    #[prost(map = "string, message", tag = "4")]
    pub(crate) parameters: std::collections::HashMap<String, Parameter>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) inputs: Vec<Tensor>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub(crate) raw_input_contents: Vec<Vec<u8>>,
}

/// `inference.ModelInferResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct InferResponse {
    #[prost(map = "string, message", tag = "4")]
    pub(crate) parameters: std::collections::HashMap<String, Parameter>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) outputs: Vec<Tensor>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub(crate) raw_output_contents: Vec<Vec<u8>>,
}

/// `inference.ModelStreamInferResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StreamInferResponse {
    #[prost(message, optional, tag = "2")]
    pub(crate) infer_response: Option<InferResponse>,
}

/// `vllm.grpc.engine.GenerateRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GenerateRequest {
    #[prost(string, tag = "3")]
    pub(crate) text: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) sampling_params: Option<SamplingParams>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SamplingParams {
    #[prost(uint32, optional, tag = "8")]
    pub(crate) max_tokens: Option<u32>,
}

/// `vllm.grpc.engine.GenerateResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GenerateResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) chunk: Option<Chunk>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Chunk {
    #[prost(uint32, repeated, tag = "1")]
    pub(crate) token_ids: Vec<u32>,
    #[prost(uint32, tag = "2")]
    pub(crate) prompt_tokens: u32,
}

/// A message with its head.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    with_head(0, &message.encode_to_vec())
}

/// The same, packed.
pub(crate) fn packed(message: &impl Message) -> Bytes {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&message.encode_to_vec()).unwrap();
    with_head(1, &encoder.finish().unwrap())
}

pub(crate) fn with_head(flag: u8, message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag][..], &length, message].concat().into()
}

/// A tensor of one text, and its bytes.
fn text(name: &str, text: &str) -> (Tensor, Vec<u8>) {
    let tensor = Tensor { name: name.to_owned(), datatype: "BYTES".to_owned(), shape: vec![1] };
    (tensor, [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat())
}

fn parameters(all: &[(&str, i64)]) -> std::collections::HashMap<String, Parameter> {
    all.iter().map(|(name, value)| ((*name).to_owned(), Parameter { int64_param: Some(*value) })).collect()
}

/// A prompt of so many tokens, and so many to answer it.
pub(crate) fn prompt(tokens: usize, most: i64) -> InferRequest {
    let (input, raw) = text("text_input", &"tide".repeat(tokens));
    InferRequest {
        model_name: "m".to_owned(),
        parameters: parameters(&[("max_tokens", most)]),
        inputs: vec![input],
        raw_input_contents: vec![raw],
    }
}

/// An answer with this text.
pub(crate) fn generated(words: &str, said: &[(&str, i64)]) -> InferResponse {
    let (output, raw) = text("text_output", words);
    InferResponse { parameters: parameters(said), outputs: vec![output], raw_output_contents: vec![raw] }
}

/// A piece of a stream with this text.
pub(crate) fn piece(words: &str) -> StreamInferResponse {
    StreamInferResponse { infer_response: Some(generated(words, &[])) }
}
