// Asks as a user of the official library does: it retries by itself, as the server tells it to.
import OpenAI from "openai";

const [url, calls] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: "of-this-test", maxRetries: 2, timeout: 30_000 });
const messages = [{ role: "user", content: "Hello" }];
const began = performance.now();
let tokens = 0;
for (let call = 0; call < Number(calls); call++) {
  if (call % 2 === 0) {
    const answer = await client.chat.completions.create({ model: "llama-sim", messages, max_tokens: 3 });
    tokens += answer.usage.completion_tokens;
  } else {
    const events = await client.chat.completions.create({
      model: "llama-sim", messages, max_tokens: 3, stream: true,
    });
    for await (const event of events) tokens += event.choices?.[0]?.delta?.content ? 1 : 0;
  }
}
console.log(JSON.stringify({ seconds: (performance.now() - began) / 1000, tokens }));
