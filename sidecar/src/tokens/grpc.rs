//! Tokens of calls of gRPC, counted from their messages as they pass: of Triton and `KServe` v2
//! (`inference.GRPCInferenceService`), and of vLLM (`vllm.grpc.engine.VllmEngine`).

mod answer;
mod frames;
mod request;
mod tensor;
mod wire;

pub use answer::AnswerReader;
pub use request::RequestReader;

/// A method whose messages are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `ModelInfer`: one request, one answer.
    Infer,
    /// `ModelStreamInfer`: requests and answers, as both sides like.
    StreamInfer,
    /// vLLM's `Generate`: one request, the pieces of its answer.
    Generate,
    /// vLLM's `Embed`: one request, one answer that generates nothing.
    Embed,
}

impl Method {
    /// The one that is called by this path.
    pub fn of(path: &str) -> Option<Self> {
        match path {
            "/inference.GRPCInferenceService/ModelInfer" => Some(Self::Infer),
            "/inference.GRPCInferenceService/ModelStreamInfer" => Some(Self::StreamInfer),
            "/vllm.grpc.engine.VllmEngine/Generate" => Some(Self::Generate),
            "/vllm.grpc.engine.VllmEngine/Embed" => Some(Self::Embed),
            _ => None,
        }
    }

    /// Whether it is answered by what a model generates.
    pub fn generates(self) -> bool {
        self != Self::Embed
    }

    /// Whether its answer comes in several messages, so that it can end before it is whole.
    pub fn streams(self) -> bool {
        matches!(self, Self::StreamInfer | Self::Generate)
    }

    /// Whether its client may wait for an answer before it says anything.
    pub fn is_dialogue(self) -> bool {
        self == Self::StreamInfer
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
