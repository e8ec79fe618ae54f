// Shows each token as soon as it comes. The same call with three clients: Connect, Connect's over gRPC-Web, and grpc-web.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web';
import { GrpcWebClientBase, MethodDescriptor, MethodType } from 'grpc-web';
import { FinishReason, LanguageModel, PromptSchema, TokenSchema } from './language_model_pb.js';

// The ingress; another one with ?ingress=http://HOST:PORT.
const baseUrl = new URLSearchParams(location.search).get('ingress') ?? 'http://localhost:9000';
const transports = {
  connect: createConnectTransport({ baseUrl, useBinaryFormat: true }),
  'connect-grpc-web': createGrpcWebTransport({ baseUrl }),
};

// In the text format tokens come one by one; in the binary format grpc-web gives them all at the end.
const grpcWeb = new GrpcWebClientBase({ format: 'text' });
const generate = new MethodDescriptor(
  '/language_model.LanguageModel/Generate',
  MethodType.SERVER_STREAMING,
  Object,
  Object,
  (prompt) => toBinary(PromptSchema, prompt),
  (bytes) => fromBinary(TokenSchema, bytes),
);

function generateWithGrpcWeb(prompt, signal, onToken) {
  return new Promise((resolve, reject) => {
    const stream = grpcWeb.serverStreaming(`${baseUrl}/language_model.LanguageModel/Generate`, prompt, {}, generate);
    signal.addEventListener('abort', () => {
      stream.cancel();
      reject(new ConnectError('stopped', Code.Canceled));
    });
    stream.on('data', onToken);
    stream.on('error', (error) => reject(new ConnectError(error.message, error.code)));
    stream.on('end', resolve);
  });
}

async function generateWithConnect(name, prompt, signal, onToken) {
  const client = createClient(LanguageModel, transports[name]);
  for await (const token of client.generate(prompt, { signal })) onToken(token);
}

const form = document.querySelector('form');
const answer = document.getElementById('answer');
const status = document.getElementById('status');
const { start, stop, text, maxTokens, client } = form.elements;
let running = new AbortController();

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  running = new AbortController();
  [start.disabled, stop.disabled] = [true, false];
  answer.textContent = text.value;
  status.textContent = '';
  let count = 0;
  const prompt = create(PromptSchema, { text: text.value, maxTokens: maxTokens.valueAsNumber });
  const onToken = (token) => {
    if (token.finishReason !== FinishReason.UNFINISHED) {
      status.textContent = `${count} tokens: ${FinishReason[token.finishReason]}`;
      return;
    }
    count += 1;
    answer.append(/^[.,]$/.test(token.text) ? token.text : ` ${token.text}`);
  };
  try {
    if (client.value === 'grpc-web') await generateWithGrpcWeb(prompt, running.signal, onToken);
    else await generateWithConnect(client.value, prompt, running.signal, onToken);
  } catch (error) {
    const { code, rawMessage } = ConnectError.from(error);
    status.textContent = code === Code.Canceled ? `${count} tokens, then you stopped it` : `${Code[code]}: ${rawMessage}`;
  }
  [start.disabled, stop.disabled] = [false, true];
});
stop.addEventListener('click', () => running.abort());
