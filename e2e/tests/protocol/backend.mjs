// A server that prints method, target and length of the body of each request
// that it has read whole, on the port of its argument.
import { createServer } from "node:http";

createServer((request, response) => {
  let length = 0;
  request.on("data", (data) => (length += data.length));
  request.on("end", () => {
    console.log(request.method, request.url, length);
    response.end("ok");
  });
}).listen(Number(process.argv[2]), "127.0.0.1");
