//! What a request asks for, by its path and the begin of its body.

use tidegate_core::Tokens;

use super::ending::Style;
use super::grpc::Method;
use super::prompt::Prompt;

/// Ends of paths that answer without generating.
const SILENT: &[&str] = &[
    "embeddings",
    "embed",
    "embed_all",
    "embed_sparse",
    "rerank",
    "score",
    "pooling",
    "classify",
    "tokenize",
    "detokenize",
    "count_tokens",
];

/// What a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Of its path.
    model: Option<Box<str>>,
    generates: bool,
    style: Style,
    /// Of gRPC.
    call: Option<Method>,
    /// Of its body, when there is one that may be read.
    prompt: Option<Prompt>,
}

impl Asked {
    /// Of a request for this path.
    pub fn new(path: &str, prompt: Option<Prompt>) -> Self {
        let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        Self {
            model: model_of(path).map(Box::from),
            generates: !SILENT.contains(&last),
            style: Style::of(last),
            call: None,
            prompt,
        }
    }

    /// Of a call of gRPC.
    pub fn of_call(call: Option<Method>, prompt: Option<Prompt>) -> Self {
        let generates = call.is_some_and(Method::generates);
        Self { model: None, generates, style: Style::Grpc, call, prompt }
    }

    /// The method of gRPC that it calls, if its messages are understood.
    pub fn call(&self) -> Option<Method> {
        self.call
    }

    /// The model that it names. The path goes before the body, as it does for engines that have it there.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref().or_else(|| self.prompt.as_ref()?.model.as_deref())
    }

    /// The service tier that its body asks for.
    pub fn service_tier(&self) -> Option<&str> {
        self.prompt.as_ref()?.service_tier.as_deref()
    }

    /// What its body tells.
    pub fn prompt(&self) -> Option<&Prompt> {
        self.prompt.as_ref()
    }

    /// How its streams end.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Whether it is answered by what a model generates.
    pub fn generates(&self) -> bool {
        self.generates
    }

    /// What it is estimated to use, when answers usually have `usual` tokens.
    pub fn tokens(&self, usual: u32) -> Tokens {
        let Some(prompt) = &self.prompt else { return Tokens::default() };
        let longest = prompt.max_output.unwrap_or(usual);
        let output = if self.generates { longest.saturating_mul(prompt.answers.max(1)) } else { 0 };
        Tokens { input: prompt.input, cached: 0, output }
    }
}

/// The model in the paths of `KServe` and Triton: `/v2/models/{model}/versions/{version}/infer`, `/v1/models/{model}:predict`.
fn model_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v2/models/").or_else(|| path.strip_prefix("/v1/models/"))?;
    let model = rest.split(['/', ':']).next()?;
    Some(model).filter(|model| !model.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_names_a_model_where_engines_look_for_it_there() {
        for (path, model) in [
            ("/v2/models/llama/generate", Some("llama")),
            ("/v2/models/llama/versions/2/infer", Some("llama")),
            ("/v1/models/llama:predict", Some("llama")),
            ("/v2/models/", None),
            ("/v1/chat/completions", None),
        ] {
            assert_eq!(Asked::new(path, None).model(), model, "{path}");
        }
    }

    #[test]
    fn what_does_not_generate_reserves_no_answer() {
        let prompt = Prompt { input: 10, max_output: Some(5), answers: 2, ..Prompt::default() };
        let tokens = |path| Asked::new(path, Some(prompt.clone())).tokens(100);
        assert_eq!(tokens("/v1/embeddings"), Tokens { input: 10, cached: 0, output: 0 });
        assert_eq!(tokens("/v1/completions"), Tokens { input: 10, cached: 0, output: 10 });
    }
}
