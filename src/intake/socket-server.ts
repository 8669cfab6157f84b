import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { OperationalError } from '../core/errors.ts';
import type { Log } from '../core/ports.ts';
import { makeOpenApi } from './openapi.ts';
import { listenOn, type Place } from './socket-listen.ts';
import { refusal, sendProblem, sendRawProblem } from './socket-problem.ts';

/** More than any signal needs: 64 parameters of 4 KiB are refused by the parser, not by us. */
const LARGEST_BODY = 64 * 1024;
const LARGEST_HEAD = 8 * 1024;

/** Two for each run (its lease and its signal), and some to look on. One client's directory is one client's to fill. */
const MOST_CONNECTIONS = 256;

/** How long a request may take to arrive: on this machine, from a program that has it in hand. */
const REQUEST_TERM_MS = 20_000;

/** What a route sees of one request. */
export type Exchange = {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** What stood in the path for `{name}`. */
  readonly path: Readonly<Record<string, string>>;
  /** The query, of the names that the route knows. */
  readonly query: Readonly<Record<string, string>>;
  /** Reads the body as JSON. @throws OperationalError */
  readonly body: () => Promise<unknown>;
  /** Aborts when the client is gone, or the server is. */
  readonly signal: AbortSignal;
  /** Aborts when the server is closed. */
  readonly closing: AbortSignal;
};

/** One thing to ask for. Only OperationalErrors are answered; any other is a bug and ends the process. */
export type Route = {
  readonly method: 'GET' | 'POST';
  /** Segments, of which `{name}` stands for any one id: `/v1/runs/{id}`. */
  readonly path: string;
  /** Names that may stand in the query. */
  readonly query?: readonly string[];
  readonly respond: (exchange: Exchange) => Promise<void> | void;
};

/** What a server needs. */
export type ServerOptions = Place & {
  /** What it is called in its OpenAPI document, which it serves by itself. */
  readonly title: string;
  readonly routes: readonly Route[];
  readonly log: Log;
  /** How long a request may take to arrive whole. */
  readonly requestTermMs?: number;
};

/**
 * Serves routes over HTTP/1.1 on a unix socket. Closing it breaks off whatever is still open.
 * @throws OperationalError `configuration`: the socket cannot be made
 */
export async function openServer({
  title,
  routes: given,
  log,
  requestTermMs = REQUEST_TERM_MS,
  ...place
}: ServerOptions): Promise<AsyncDisposable> {
  const closing = new AbortController();
  const routes: Route[] = [
    ...given,
    { method: 'GET', path: '/openapi.json', respond: ({ response }) => sendJson(response, 200, document) },
  ];
  const document = makeOpenApi({ title, routes });
  const server = createServer({
    maxHeaderSize: LARGEST_HEAD,
    headersTimeout: requestTermMs,
    requestTimeout: requestTermMs,
    connectionsCheckingInterval: requestTermMs / 4,
    keepAliveTimeout: 5_000,
    requireHostHeader: false, // a unix socket has no name to be mistaken for
  });
  server.maxConnections = MOST_CONNECTIONS;
  server.on('request', (request, response) => void respond(request, response, routes, log, closing.signal));
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => refuseJunk(error, socket));
  server.on('connect', (_request, socket: Duplex) =>
    sendRawProblem(socket, refusal(405, 'method CONNECT: not known here')),
  );
  await listenOn(server, place);
  server.on('error', (error) => log.error('socket is in trouble', { path: place.path, error: error.message }));
  return {
    [Symbol.asyncDispose]: () => {
      closing.abort(new Error('the sidecar ends'));
      return close(server);
    },
  };
}

/** Sends one JSON document. */
export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const body = `${JSON.stringify(value)}\n`;
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
  });
  response.end(body);
}

async function respond(
  request: IncomingMessage,
  response: ServerResponse,
  routes: readonly Route[],
  log: Log,
  closing: AbortSignal,
): Promise<void> {
  if (response.socket === null) {
    request.socket.destroy(); // sent before the one before it was answered: nobody's client does that
    return;
  }
  const gone = new AbortController();
  response.once('close', () => gone.abort(new Error('the client is gone')));
  response.on('error', () => undefined); // written to a client that is gone: 'close' says so
  try {
    const { route, path, query } = find(request, routes);
    const signal = AbortSignal.any([gone.signal, closing]);
    await route.respond({ request, response, path, query, body: () => readJson(request), signal, closing });
  } catch (error) {
    if (gone.signal.aborted) return;
    if (closing.aborted) {
      response.destroy();
      return;
    }
    if (!(error instanceof OperationalError)) throw error;
    log.debug('request refused', { method: request.method, url: request.url, code: error.code, detail: error.message });
    sendProblem(response, error);
  }
}

function find(
  { method = '', url = '' }: IncomingMessage,
  routes: readonly Route[],
): Pick<Exchange, 'path' | 'query'> & { route: Route } {
  const [pathname = '', ...search] = url.split('?');
  const matches = routes.flatMap((route) => {
    const path = match(route.path, pathname);
    return path === undefined ? [] : [{ route, path }];
  });
  if (matches.length === 0) throw refusal(404, `path ${shorten(pathname)}: not known here; see /openapi.json`);
  const found = matches.find(({ route }) => route.method === method);
  if (found === undefined) {
    const allow = matches.map(({ route }) => route.method).join(', ');
    throw refusal(405, `method ${method}: expected ${allow} for ${shorten(pathname)}`, { allow });
  }
  return { ...found, query: queryOf(new URLSearchParams(search.join('?')), found.route.query ?? []) };
}

function match(pattern: string, pathname: string): Record<string, string> | undefined {
  const [wanted, came] = [pattern.split('/'), pathname.split('/')];
  if (wanted.length !== came.length) return undefined;
  const path: Record<string, string> = {};
  for (const [index, segment] of wanted.entries()) {
    const value = came[index] ?? '';
    const name = /^\{(\w+)\}$/.exec(segment)?.[1];
    if (name === undefined ? segment !== value : !/^[a-zA-Z0-9][\w.-]{0,79}$/.test(value)) return undefined;
    if (name !== undefined) path[name] = value;
  }
  return path;
}

function queryOf(search: URLSearchParams, known: readonly string[]): Record<string, string> {
  const query: Record<string, string> = {};
  for (const [name, value] of search) {
    if (!known.includes(name)) throw refusal(422, `query ${shorten(name)}: expected ${known.join(', ') || 'none'}`);
    if (Object.hasOwn(query, name)) throw refusal(422, `query ${name}: expected once`);
    query[name] = value;
  }
  return query;
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const type = (request.headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase();
  if (type !== 'application/json')
    throw refusal(415, `content-type: expected application/json, got ${shorten(type ?? '') || 'none'}`);
  if ((request.headers['content-encoding'] ?? 'identity') !== 'identity')
    throw refusal(415, 'content-encoding: expected none');
  const tooLarge = refusal(413, `body: expected at most ${LARGEST_BODY} bytes`);
  if (Number(request.headers['content-length'] ?? 0) > LARGEST_BODY) throw tooLarge;

  const body = await readBytes(request);
  if (body === undefined) throw tooLarge;
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch (cause) {
    throw refusal(400, `body: expected JSON in UTF-8: ${(cause as Error).message}`);
  }
}

/** Undefined: more than we take. */
async function readBytes(request: IncomingMessage): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      chunks.push(chunk as Buffer);
      size += (chunk as Buffer).length;
      if (size > LARGEST_BODY) return undefined;
    }
  } catch (cause) {
    throw refusal(400, `body: broke off: ${(cause as Error).message}`);
  }
  return Buffer.concat(chunks);
}

/** What is no HTTP, too large or too slow. Where an answer is under way already, a second one would only garble it. */
function refuseJunk(error: NodeJS.ErrnoException, socket: Duplex & { _httpMessage?: ServerResponse }): void {
  if (!socket.writable || error.code === 'ECONNRESET' || socket._httpMessage?.headersSent) {
    socket.destroy();
    return;
  }
  if (error.code === 'HPE_HEADER_OVERFLOW')
    sendRawProblem(socket, refusal(431, `headers: expected at most ${LARGEST_HEAD} bytes`));
  else if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT')
    sendRawProblem(socket, refusal(408, 'request: did not arrive in time'));
  else sendRawProblem(socket, refusal(400, 'request: expected HTTP/1.1'));
}

function shorten(text: string): string {
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

/** Answers that were ended are let out first; they go no further than the kernel's buffer, so it takes no time. */
async function close(server: Server): Promise<void> {
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
    setImmediate(() => server.closeAllConnections());
  });
}
