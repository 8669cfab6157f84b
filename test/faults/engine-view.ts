/** The engine's own view, through its own API: what runs, and what became of it. Nothing of ours is asked. */
import { Agent, type IncomingMessage, request } from 'node:http';
import { createInterface } from 'node:readline';

/** What the engine says of one container. */
export type Life = {
  readonly id: string;
  readonly status: string;
  readonly isRunning: boolean;
  readonly isPaused: boolean;
  readonly health: string | undefined;
  readonly startedAt: string;
  readonly finishedAt: string;
};

/** What became of a container: `start`, `die`, `health_status: healthy`; the moment in nanoseconds. */
export type Event = {
  readonly id: string /** Of its compose service. */;
  readonly name: string;
  readonly what: string;
  readonly at: bigint;
};

export type EngineView = Disposable & {
  readonly socketPath: string;
  /** Any call. @throws EngineError for what is not 2xx or 304 */
  ask<Answer>(method: string, path: string, body?: object): Promise<Answer>;
  /** The same, as it came. */
  askText(method: string, path: string, body?: object): Promise<string>;
  /** undefined: there is no such container. */
  lifeOf(idOrName: string): Promise<Life | undefined>;
  /** Follows what becomes of the containers with this label from now on, also over restarts of the engine. */
  follow(label: string): Promise<Following>;
};

export type Following = Disposable & {
  /** What has come so far, in order. */
  events(): readonly Event[];
};

/** The engine refused: its status and words. */
class EngineError extends Error {
  override readonly name = 'EngineError';
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const KINDS = ['start', 'die', 'kill', 'pause', 'unpause', 'destroy', 'rename', 'health_status'];
/** Nothing that is asked here takes longer, on however loaded a machine. */
const PATIENCE_MS = 120_000;

export function viewEngine(socketPath: string): EngineView {
  const agent = new Agent({ keepAlive: false });

  function dial(method: string, path: string, body: object | undefined, patienceMs: number): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    const sent = request({ socketPath, agent, method, path, headers, timeout: patienceMs }, resolve);
    sent.on('error', reject).on('timeout', () => sent.destroy(new Error(`${method} ${path}: no answer`)));
    sent.end(body === undefined ? undefined : JSON.stringify(body));
    return promise;
  }

  async function askText(method: string, path: string, body?: object): Promise<string> {
    const response = await dial(method, path, body, PATIENCE_MS);
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    const status = response.statusCode ?? 0;
    if (status >= 300 && status !== 304) throw new EngineError(status, `${method} ${path}: ${status} ${text.trim()}`);
    return text;
  }

  async function ask<Answer>(method: string, path: string, body?: object): Promise<Answer> {
    const text = await askText(method, path, body);
    return (text.startsWith('{') || text.startsWith('[') ? JSON.parse(text) : undefined) as Answer;
  }

  async function lifeOf(idOrName: string): Promise<Life | undefined> {
    try {
      const { Id, State } = await ask<RawContainer>('GET', `/containers/${idOrName}/json`);
      return {
        id: Id,
        status: State.Status,
        isRunning: State.Running && !State.Paused,
        isPaused: State.Paused,
        health: State.Health?.Status,
        startedAt: State.StartedAt,
        finishedAt: State.FinishedAt,
      };
    } catch (error) {
      if (error instanceof EngineError && error.status === 404) return undefined;
      throw error;
    }
  }

  async function follow(label: string): Promise<Following> {
    const filters = encodeURIComponent(JSON.stringify({ type: ['container'], label: [label], event: KINDS }));
    const events: Event[] = [];
    const seen = new Set<string>();
    const beganAt = (Date.now() / 1000).toFixed(3);
    let isOver = false;
    let response: IncomingMessage | undefined;
    const take = (line: string): void => {
      if (seen.has(line)) return; // told again after a restart
      seen.add(line);
      const { Action, Actor } = JSON.parse(line) as RawEvent;
      const at = BigInt(/"timeNano":(\d+)/.exec(line)?.[1] ?? 0); // too large for a number
      const { 'com.docker.compose.service': name = '' } = Actor.Attributes;
      events.push({ id: Actor.ID, name, what: Action, at });
    };
    const listen = async (): Promise<void> => {
      response = await dial('GET', `/events?since=${beganAt}&filters=${filters}`, undefined, 0);
      const lines = createInterface({ input: response, crlfDelay: Number.POSITIVE_INFINITY });
      lines.on('line', take);
      lines.on('error', () => undefined); // it was cut off, and is followed again
      response.once('close', () => void listenAgain());
    };
    const listenAgain = async (): Promise<void> => {
      while (!isOver) {
        try {
          return await listen();
        } catch {
          await new Promise((resolve) => setTimeout(resolve, 100)); // it is away
        }
      }
    };
    await listen();
    return {
      events: () => events.toSorted((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0)),
      [Symbol.dispose]() {
        isOver = true;
        response?.destroy();
      },
    };
  }

  return { socketPath, ask, askText, lifeOf, follow, [Symbol.dispose]: () => agent.destroy() };
}

type RawContainer = {
  readonly Id: string;
  readonly State: {
    readonly Status: string;
    readonly Running: boolean;
    readonly Paused: boolean;
    readonly StartedAt: string;
    readonly FinishedAt: string;
    readonly Health?: { readonly Status: string };
  };
};

type RawEvent = {
  readonly Action: string;
  readonly Actor: { readonly ID: string; readonly Attributes: Readonly<Record<string, string>> };
};
