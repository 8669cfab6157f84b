/** The API server: every question goes out here, and every answer is translated here. */
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { KubeConfig } from '@kubernetes/client-node';
import { OperationalError } from '../core/errors.ts';

/** One call of the API. */
export type Question = {
  /** For messages: `scale deployment/web to 0`. */
  readonly doing: string;
  readonly method?: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: object;
  /** Statuses beside 2xx that the caller understands; any other rejects. */
  readonly accept?: readonly number[];
  readonly signal: AbortSignal;
};

/** What came back: the parsed body, and what the server said of its refusal, empty when that cannot be understood. */
export type Answer = { readonly status: number; readonly body: unknown; readonly message: string };

/** Where a WebSocket goes, with the credentials of this moment. */
export type Doorway = { readonly url: string; readonly options: RequestOptions };

/**
 * The API of one namespace. Rejects with the signal's reason when it aborts.
 * @throws OperationalError `engine-unavailable` (no answer, or none of the API's own), `refused` (401, 403),
 *   `workload-failed` (every other refusal)
 */
export interface Api {
  readonly namespace: string;
  ask(question: Question): Promise<Answer>;
  /** Resolves once the answer begins. The reader destroys the stream; so does an abort. */
  open(question: Question): Promise<IncomingMessage>;
  dial(path: string, query: URLSearchParams): Promise<Doorway>;
}

/** How the API is found: the pod's own service account, or a kubeconfig. */
export type ApiOptions = { readonly env: Readonly<Record<string, string | undefined>> };

const PATIENCE_MS = 30_000;
/** For a server that says that it has too much to do. */
const MOST_WAIT_MS = 10_000;
const MOST_TRIES = 8;
const MOST_BYTES = 256 * 1024 * 1024;

/** Finds the API; asks nothing yet. @throws OperationalError `configuration` */
export function openApi({ env }: ApiOptions): Api {
  let config = load(env);
  const server = config.getCurrentCluster()?.server.replace(/\/+$/, '') ?? '';
  const namespace = config.getContextObject(config.getCurrentContext())?.namespace?.trim() || 'default';

  const credentials = async (): Promise<RequestOptions> => {
    const options: RequestOptions = {};
    try {
      await config.applyToHTTPSOptions(options);
    } catch (cause) {
      throw new OperationalError('engine-unavailable', `read the credentials for ${server}: ${whyOf(cause)}`, {
        cause,
      });
    }
    return options;
  };

  /** One try; a token that was replaced meanwhile is read again. */
  async function send(question: Question, signal: AbortSignal): Promise<IncomingMessage> {
    const first = await transmit(server, question, await credentials(), signal);
    if (first.statusCode !== 401) return first;
    first.resume();
    config = load(env);
    return transmit(server, question, await credentials(), signal);
  }

  async function open(question: Question): Promise<IncomingMessage> {
    const { signal, accept = [] } = question;
    for (let tries = 1; ; tries += 1) {
      signal.throwIfAborted();
      const patience = new AbortController();
      const timer = setTimeout(() => patience.abort(), PATIENCE_MS);
      try {
        const response = await send(question, AbortSignal.any([signal, patience.signal]));
        const { statusCode: status = 0, headers } = response;
        if ((status >= 200 && status < 300) || accept.includes(status)) return response;
        const answer = await read(response);
        const isBusy = status === 429 || (status >= 500 && headers['retry-after'] !== undefined);
        if (!isBusy || tries === MOST_TRIES) throw refusal(question, server, answer);
        const seconds = Number(headers['retry-after'] ?? 1);
        await sleep(Math.min((Number.isFinite(seconds) ? seconds : 1) * 1000, MOST_WAIT_MS), undefined, { signal });
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof OperationalError) throw error;
        const why = patience.signal.aborted ? `no answer in ${PATIENCE_MS / 1000} s` : whyOf(error);
        throw unavailable(question, server, why, error);
      } finally {
        clearTimeout(timer);
      }
    }
  }

  return {
    namespace,
    open,
    async ask(question) {
      const whole = AbortSignal.any([question.signal, AbortSignal.timeout(PATIENCE_MS * 4)]);
      try {
        return await read(await open({ ...question, signal: whole }));
      } catch (error) {
        question.signal.throwIfAborted();
        if (error instanceof OperationalError) throw error;
        throw unavailable(question, server, `its answer broke off: ${whyOf(error)}`, error);
      }
    },
    async dial(path, query) {
      return { url: `${server.replace(/^http/, 'ws')}${path}?${query}`, options: await credentials() };
    },
  };
}

function load(env: ApiOptions['env']): KubeConfig {
  const config = new KubeConfig();
  try {
    if (env.KUBECONFIG) config.loadFromFile(env.KUBECONFIG);
    else if (env.KUBERNETES_SERVICE_HOST !== undefined) config.loadFromCluster();
    else config.loadFromDefault();
  } catch (cause) {
    const where = env.KUBECONFIG ? `KUBECONFIG ${env.KUBECONFIG}` : 'the service account';
    throw new OperationalError('configuration', `engine kubernetes: read ${where}: ${whyOf(cause)}`, { cause });
  }
  if (config.getCurrentCluster() === null) {
    const why = 'no cluster is named; run in a pod with a service account, or set KUBECONFIG';
    throw new OperationalError('configuration', `engine kubernetes: ${why}`);
  }
  return config;
}

function transmit(
  server: string,
  { method = 'GET', path, query, body }: Question,
  options: RequestOptions,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const url = `${server}${path}${query === undefined ? '' : `?${new URLSearchParams(query)}`}`;
  const headers = {
    ...options.headers,
    Accept: 'application/json',
    ...(text === undefined ? {} : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) }),
  };
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const send = url.startsWith('https:') ? httpsRequest : httpRequest;
  const request: ClientRequest = send(url, { ...options, method, headers, signal });
  request.on('error', reject).on('response', (response) => {
    response.socket.setKeepAlive(true, 30_000); // a peer that vanished without a word is found out
    resolve(response);
  });
  request.end(text);
  return promise;
}

/** Reads an answer whole. */
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
  const { message } = (body ?? {}) as { readonly message?: unknown };
  return { status: response.statusCode ?? 0, body, message: typeof message === 'string' ? message.trim() : '' };
}

/** JSON, or undefined for what is none. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Turns a refusal into ours; the server's own words name what the Role lacks. */
function refusal({ doing }: Question, server: string, { status, message }: Answer): OperationalError {
  const said = message === '' ? '' : `: ${message}`;
  if (status === 401 || status === 403) {
    return new OperationalError('refused', `${doing}: the API at ${server} does not permit it (${status}${said})`);
  }
  if (status >= 500 || status === 429) return unavailable({ doing }, server, `it answered ${status}${said}`);
  return new OperationalError('workload-failed', `${doing}: ${message || `the API answered ${status}`}`);
}

function unavailable(
  { doing }: Pick<Question, 'doing'>,
  server: string,
  why: string,
  cause?: unknown,
): OperationalError {
  return new OperationalError('engine-unavailable', `${doing}: the API at ${server} cannot be reached: ${why}`, {
    cause,
  });
}

function whyOf(error: unknown): string {
  const { code = '', message = '' } = (error ?? {}) as { readonly code?: string; readonly message?: string };
  return message || code || 'for no stated reason';
}
