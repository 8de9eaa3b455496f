//! The paths of inference APIs, as labels. Whoever sends requests chooses their paths: a label is one of a fixed list.

/// Where a request goes, as far as it is known what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `OpenAI`'s chat.
    ChatCompletions,
    /// `OpenAI`'s text completion.
    Completions,
    /// `OpenAI`'s responses.
    Responses,
    /// Anthropic's messages.
    Messages,
    /// `OpenAI`'s embeddings.
    Embeddings,
    /// Reranking.
    Rerank,
    /// The list of models.
    Models,
    /// TGI's and `SGLang`'s own API.
    Generate,
    /// The same, as a stream.
    GenerateStream,
    /// `KServe` v2 over HTTP.
    Infer,
    /// Triton's generate extension.
    TritonGenerate,
    /// The same, as a stream.
    TritonGenerateStream,
    /// `KServe` v2 over gRPC.
    GrpcInfer,
    /// The same, as a stream.
    GrpcStreamInfer,
    /// Any other.
    Other,
}

/// What a request asks a model for, and in whose API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A turn of a conversation.
    Chat,
    /// The same, as Anthropic's clients ask for it.
    Messages,
    /// The continuation of a text.
    TextCompletion,
    /// The same, in an engine's own API.
    Generate,
    /// Vectors of texts.
    Embeddings,
}

impl Route {
    /// Every route, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Responses,
        Self::Messages,
        Self::Embeddings,
        Self::Rerank,
        Self::Models,
        Self::Generate,
        Self::GenerateStream,
        Self::Infer,
        Self::TritonGenerate,
        Self::TritonGenerateStream,
        Self::GrpcInfer,
        Self::GrpcStreamInfer,
        Self::Other,
    ];

    /// That of a path without its query.
    pub fn of(path: &str) -> Self {
        match path {
            "/v1/chat/completions" => Self::ChatCompletions,
            "/v1/completions" => Self::Completions,
            "/v1/responses" => Self::Responses,
            "/v1/messages" => Self::Messages,
            "/v1/embeddings" => Self::Embeddings,
            "/v1/rerank" => Self::Rerank,
            "/v1/models" => Self::Models,
            "/generate" => Self::Generate,
            "/generate_stream" => Self::GenerateStream,
            "/inference.GRPCInferenceService/ModelInfer" => Self::GrpcInfer,
            "/inference.GRPCInferenceService/ModelStreamInfer" => Self::GrpcStreamInfer,
            _ => path.strip_prefix("/v2/models/").map_or(Self::Other, Self::of_model),
        }
    }

    /// That of what comes after `/v2/models/`: a model, perhaps its version, and a verb.
    fn of_model(rest: &str) -> Self {
        match rest.rsplit_once('/') {
            Some((_, "infer")) => Self::Infer,
            Some((_, "generate")) => Self::TritonGenerate,
            Some((_, "generate_stream")) => Self::TritonGenerateStream,
            _ => Self::Other,
        }
    }

    /// As in metrics and spans: the path, with `*` for what a client chooses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
            Self::Embeddings => "/v1/embeddings",
            Self::Rerank => "/v1/rerank",
            Self::Models => "/v1/models",
            Self::Generate => "/generate",
            Self::GenerateStream => "/generate_stream",
            Self::Infer => "/v2/models/*/infer",
            Self::TritonGenerate => "/v2/models/*/generate",
            Self::TritonGenerateStream => "/v2/models/*/generate_stream",
            Self::GrpcInfer => "/inference.GRPCInferenceService/ModelInfer",
            Self::GrpcStreamInfer => "/inference.GRPCInferenceService/ModelStreamInfer",
            Self::Other => "other",
        }
    }

    /// What is asked for there; none where the path does not tell.
    pub const fn operation(self) -> Option<Operation> {
        match self {
            Self::ChatCompletions | Self::Responses => Some(Operation::Chat),
            Self::Messages => Some(Operation::Messages),
            Self::Completions => Some(Operation::TextCompletion),
            Self::Generate | Self::GenerateStream | Self::TritonGenerate | Self::TritonGenerateStream => {
                Some(Operation::Generate)
            }
            Self::Embeddings => Some(Operation::Embeddings),
            Self::Rerank
            | Self::Models
            | Self::Infer
            | Self::GrpcInfer
            | Self::GrpcStreamInfer
            | Self::Other => None,
        }
    }
}

impl Operation {
    /// Every operation, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Chat, Self::Messages, Self::TextCompletion, Self::Generate, Self::Embeddings];

    /// OpenTelemetry's `gen_ai.operation.name`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat | Self::Messages => "chat",
            Self::TextCompletion | Self::Generate => "text_completion",
            Self::Embeddings => "embeddings",
        }
    }

    /// OpenTelemetry's `gen_ai.provider.name`, which tells whose API it is and not who runs the model.
    pub const fn provider(self) -> &'static str {
        match self {
            Self::Chat | Self::TextCompletion | Self::Embeddings => "openai",
            Self::Messages => "anthropic",
            Self::Generate => "engine",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_by_its_own_path_and_has_its_own_number() {
        for (number, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route as usize, number);
            assert_eq!(Route::of(&route.as_str().replace('*', "llama")), route);
        }
        for (number, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, number);
        }
    }

    #[test]
    fn what_a_client_makes_up_is_other() {
        for path in [
            "/v1/chat/completions/",
            "/v1//models",
            "/V1/MODELS",
            "",
            "/v2/models/infer",
            "/v2/models/a/load",
        ] {
            assert_eq!(Route::of(path), Route::Other, "{path}");
        }
        assert_eq!(Route::of("/v2/models/a/versions/3/infer"), Route::Infer);
    }
}
