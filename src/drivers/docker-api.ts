/** The engine's HTTP API: every question goes out here, and every answer is translated here. */
import { readFile } from 'node:fs/promises';
import { Agent, type IncomingMessage } from 'node:http';
import { Agent as SecureAgent } from 'node:https';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { inspect } from 'node:util';
import Docker from 'dockerode';
import { OperationalError } from '../core/errors.ts';

/** One call of the API. */
export type Question = {
  /** For messages: `stop container db`. */
  readonly doing: string;
  readonly method?: 'GET' | 'POST';
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: object;
  /** Statuses beside 2xx and 304 that the caller understands; any other rejects. */
  readonly accept?: readonly number[];
  readonly signal: AbortSignal;
  /** How long the engine may take; undefined: a minute. Infinity where it waits for something itself. */
  readonly limitMs?: number;
};

/** What came back. */
export type Answer = {
  readonly status: number;
  /** The parsed body; undefined when it is empty or no JSON. */
  readonly body: unknown;
  /** What the engine said of its refusal; empty when it said nothing that can be understood. */
  readonly message: string;
};

/**
 * The engine's API. Rejects with the signal's reason when it aborts.
 * @throws OperationalError `engine-unavailable` (no answer, or none of the engine's own), `refused` (401, 403),
 *   `workload-failed` (every other refusal)
 */
export interface Api {
  /** As in DOCKER_HOST, for messages. */
  readonly host: string;
  /** Where a connection goes; undefined for a socket of this machine. */
  readonly hostname?: string;
  readonly port?: number;
  ask(question: Question): Promise<Answer>;
  /** Resolves once the answer begins. The reader destroys the stream; so does an abort. */
  open(question: Question): Promise<Readable>;
  close(): void;
}

const PATIENCE_MS = 60_000;
/** A thousand containers are some 3 MB. What is far beyond that is no engine. */
const MOST_BYTES = 256 * 1024 * 1024;
const EVERY_STATUS = Object.fromEntries(Array.from({ length: 500 }, (_, index) => [index + 100, true]));

/**
 * Opens the API at `unix://PATH`, `tcp://HOST:PORT`, `http://…` or `https://…`; asks nothing yet.
 * `certDir` (DOCKER_CERT_PATH) has ca.pem, cert.pem and key.pem, and makes tcp:// a TLS connection.
 * @throws OperationalError `configuration`
 */
export async function openApi(host: string, certDir?: string): Promise<Api> {
  const address = await parseHost(host, certDir);
  const isSecure = address.protocol === 'https';
  // A connection of its own for each question: a kept one may be dead without our knowing, and is no faster here.
  const agent = isSecure ? new SecureAgent({ keepAlive: false }) : new Agent({ keepAlive: false });
  // For each question the modem prints all that it is given, for nobody: with every open connection in it, that took
  // longer than to ask.
  Object.assign(agent, { [inspect.custom]: () => 'Agent' });
  // What is left out here, dockerode would take from the environment.
  const modem = new Docker({ ...address, agent } as Docker.DockerOptions).modem as unknown as Modem;

  async function open(question: Question): Promise<IncomingMessage> {
    const { signal, limitMs = PATIENCE_MS } = question;
    signal.throwIfAborted();
    const patience = new AbortController();
    const timer = Number.isFinite(limitMs) ? setTimeout(() => patience.abort(), limitMs) : undefined;
    try {
      const response = await dial(modem, question, AbortSignal.any([signal, patience.signal]));
      if (isWelcome(question, response)) return response;
      throw refusal(question, host, await read(response));
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof OperationalError) throw error;
      throw unavailable(
        question,
        host,
        patience.signal.aborted ? `no answer in ${limitMs / 1000} s` : whyOf(error),
        error,
      );
    } finally {
      clearTimeout(timer);
    }
  }

  return {
    host,
    ...(address.host === undefined ? {} : { hostname: address.host, port: Number(address.port) }),
    open,
    async ask(question) {
      const { signal, limitMs = PATIENCE_MS } = question;
      const patience = Number.isFinite(limitMs) ? [AbortSignal.timeout(limitMs)] : [];
      const whole = AbortSignal.any([signal, ...patience]);
      const response = await open({ ...question, signal: whole }).catch((error: unknown) => {
        signal.throwIfAborted();
        throw whole.aborted ? unavailable(question, host, `no answer in ${limitMs / 1000} s`, error) : error;
      });
      try {
        return await read(response);
      } catch (error) {
        signal.throwIfAborted();
        throw unavailable(question, host, `its answer broke off: ${whyOf(error)}`, error);
      }
    },
    close: () => agent.destroy(),
  };
}

type Address = {
  readonly socketPath: string | undefined;
  readonly host: string | undefined;
  readonly port: string | undefined;
  readonly protocol: 'http' | 'https';
  readonly ca: Buffer | undefined;
  readonly cert: Buffer | undefined;
  readonly key: Buffer | undefined;
};

async function parseHost(host: string, certDir: string | undefined): Promise<Address> {
  const none = { ca: undefined, cert: undefined, key: undefined };
  if (host.startsWith('unix://') && host.length > 'unix://'.length) {
    return { socketPath: host.slice('unix://'.length), host: undefined, port: undefined, protocol: 'http', ...none };
  }
  const url = URL.parse(host);
  if (url === null || !['tcp:', 'http:', 'https:'].includes(url.protocol) || url.hostname === '') {
    const expected = 'unix:///PATH or tcp://HOST:PORT';
    throw new OperationalError('configuration', `DOCKER_HOST: expected ${expected}, got ${JSON.stringify(host)}`);
  }
  const isSecure = url.protocol === 'https:' || certDir !== undefined;
  const port = url.port === '' ? (isSecure ? '2376' : '2375') : url.port;
  const certificates = certDir === undefined ? none : await readCertificates(certDir);
  return { socketPath: undefined, host: url.hostname, port, protocol: isSecure ? 'https' : 'http', ...certificates };
}

async function readCertificates(dir: string): Promise<Pick<Address, 'ca' | 'cert' | 'key'>> {
  const readOne = (name: string) =>
    readFile(join(dir, name)).catch((cause: unknown) => {
      throw new OperationalError('configuration', `DOCKER_CERT_PATH: read ${join(dir, name)}: ${whyOf(cause)}`, {
        cause,
      });
    });
  const [ca, cert, key] = await Promise.all(['ca.pem', 'cert.pem', 'key.pem'].map(readOne));
  return { ca, cert, key };
}

/** What dockerode's types keep to themselves. */
type Modem = {
  dial(options: object, done: (error: Error | null, response: IncomingMessage) => void): void;
};

function dial(modem: Modem, question: Question, abortSignal: AbortSignal): Promise<IncomingMessage> {
  const { method = 'GET', path, query, body = {} } = question;
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const options = {
    method,
    path: query === undefined ? path : `${path}?`,
    options: { _query: query, _body: body },
    abortSignal,
    // As a stream, always: dockerode itself waits for ever for an answer that breaks off in its middle.
    isStream: true,
    statusCodes: EVERY_STATUS,
  };
  modem.dial(options, (error, response) => {
    if (error !== null) return reject(error);
    response.socket.setKeepAlive(true, 30_000); // a peer that vanished without a word is found out
    resolve(response);
  });
  return promise;
}

function isWelcome({ accept = [] }: Question, { statusCode = 0 }: IncomingMessage): boolean {
  return (statusCode >= 200 && statusCode < 300) || statusCode === 304 || accept.includes(statusCode);
}

async function read(response: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MOST_BYTES) throw new Error(`more than ${MOST_BYTES} bytes`);
    chunks.push(chunk);
  }
  if (!response.complete) throw new Error('the connection was cut');
  const body = parseJson(Buffer.concat(chunks).toString());
  const said = (body ?? {}) as { readonly message?: unknown; readonly cause?: unknown };
  const message = typeof said.message === 'string' ? said.message.trim() : '';
  return { status: response.statusCode ?? 0, body, message };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Turns a refusal into ours. A 5xx that says nothing comes from something before the engine, or a broken one. */
function refusal(question: Question, host: string, { status, message }: Answer): OperationalError {
  const { doing, path, method = 'GET' } = question;
  if (status === 401 || status === 403) {
    const why = `the engine at ${host} does not permit ${method} ${path} (${status}${message && `: ${message}`})`;
    const advice = `behind docker-socket-proxy, set ${switchesOf(question)}`;
    return new OperationalError('refused', `${doing}: ${why}; ${advice}`);
  }
  if (status >= 502 || (status >= 500 && message === '')) {
    return unavailable(question, host, `it answered ${status}${message && `: ${message}`}`);
  }
  return new OperationalError('workload-failed', `${doing}: ${message || `the engine answered ${status}`}`);
}

/** The switches of docker-socket-proxy that let this call through. */
function switchesOf({ method = 'GET', path }: Question): string {
  const [, area = '', , verb = ''] = path.split('/');
  if (area === 'exec') return method === 'POST' ? 'EXEC=1 and POST=1' : 'EXEC=1';
  if (verb === 'start' || verb === 'stop') return `CONTAINERS=1 and ALLOW_${verb.toUpperCase()}=1, or POST=1`;
  const areas = verb === 'exec' ? 'CONTAINERS=1 and EXEC=1' : `${area.toUpperCase()}=1`;
  return method === 'POST' ? `${areas} and POST=1` : areas;
}

function unavailable({ doing }: Question, host: string, why: string, cause?: unknown): OperationalError {
  const text = `${doing}: the engine at ${host} cannot be reached: ${why}`;
  return new OperationalError('engine-unavailable', text, { cause });
}

const ADVICE: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such socket: mount it, or set DOCKER_HOST',
  EACCES: 'this user may not use the socket: run as its owner or in its group',
  ECONNREFUSED: 'nothing listens there: start the engine, or set DOCKER_HOST',
  ECONNRESET: 'the connection was cut',
  ENOTFOUND: 'no such host: set DOCKER_HOST',
  EAI_AGAIN: 'its name cannot be looked up now',
};

function whyOf(error: unknown): string {
  const { code = '', message = '' } = (error ?? {}) as { readonly code?: string; readonly message?: string };
  return ADVICE[code] ?? (message || code || 'for no stated reason');
}
