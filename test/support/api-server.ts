/**
 * A scripted API server: a store of the objects that the driver asks for, controllers that scale, pods whose programs are
 * real processes of this machine; and all that a healthy cluster will not do, on demand.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';
import { faultOf, KINDS } from './api-strictness.ts';

type Meta = {
  name: string;
  namespace?: string;
  uid: string;
  resourceVersion: string;
  generation?: number;
  creationTimestamp: string;
  deletionTimestamp?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: object[];
};
// biome-ignore lint/suspicious/noExplicitAny: the store holds whatever the API takes
export type Item = { apiVersion?: string; kind: string; metadata: Meta; spec?: any; status?: any };

/** What a request is answered with instead; `cut`: the connection ends without an answer. */
export type Fault =
  | 'cut'
  | { readonly status: number; readonly headers?: Record<string, string>; readonly body?: object };

export type Asked = {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly body: unknown;
  readonly token: string;
};

type Watch = { readonly watch: string; readonly from: string | null };

const NAMESPACE = 'shop';
/** Starts one on loopback. */
export async function openApiServer() {
  const items = new Map<string, Item>();
  const watchers = new Set<{ readonly what: string; readonly response: ServerResponse }>();
  const sockets = new Set<Socket>();
  const execs = new Set<{ readonly pod: string; readonly child: ChildProcess; readonly socket: WebSocket }>();
  const asked: Asked[] = [];
  const events: { readonly what: string; readonly version: number; readonly line: string }[] = [];
  const timers = new Set<NodeJS.Timeout>();
  const state = {
    /** Which tokens are taken; empty: any. */
    tokens: new Set<string>(),
    protocols: ['v5.channel.k8s.io', 'v4.channel.k8s.io'],
    /** What there is in a container; all, if unset. */
    programs: undefined as readonly string[] | undefined,
    /** How long pods take to stop, and to be ready. */
    stopMs: 20,
    startMs: 20,
    /** Answers of a list have as many items at most. */
    pageSize: Number.POSITIVE_INFINITY,
    /** Sees every request before it is carried out (`before`) and after (`after`): may answer in its place. */
    script: undefined as ((asked: Asked, when: 'before' | 'after') => Fault | undefined) | undefined,
    isDown: false as boolean,
  };
  let version = 100;
  let uids = 0;

  const nextVersion = (): string => String(++version);
  const newUid = (): string => `uid-${++uids}`;
  const keyOf = (what: string, name: string): string => `${what}/${name}`;
  const all = (what: string): Item[] =>
    [...items].filter(([key]) => key.startsWith(`${what}/`)).map(([, item]) => item);
  const later = (ms: number, work: () => void): void => {
    const timer = setTimeout(() => {
      timers.delete(timer);
      work();
    }, ms);
    timers.add(timer);
  };

  const tell = (what: string, type: string, object: object): void => {
    const line = `${JSON.stringify({ type, object })}\n`;
    events.push({ what, version, line });
    for (const watcher of watchers) if (watcher.what === what) watcher.response.write(line);
  };
  const put = (what: string, item: Item): void => {
    const key = keyOf(what, item.metadata.name);
    const isNew = !items.has(key);
    item.metadata.resourceVersion = nextVersion();
    items.set(key, item);
    tell(what, isNew ? 'ADDED' : 'MODIFIED', item);
  };
  const drop = (what: string, name: string): void => {
    const item = items.get(keyOf(what, name));
    if (item === undefined) return;
    items.delete(keyOf(what, name));
    item.metadata.resourceVersion = nextVersion();
    tell(what, 'DELETED', item);
  };
  const metaOf = (name: string, more: Partial<Meta> = {}): Meta => ({
    ...{ name, namespace: NAMESPACE, uid: newUid(), resourceVersion: '0', creationTimestamp: new Date().toISOString() },
    ...more,
  });

  /** The end of a pod: its processes die, a little later it is gone. */
  const endPod = (pod: Item): void => {
    if (pod.metadata.deletionTimestamp !== undefined) return;
    pod.metadata.deletionTimestamp = new Date().toISOString();
    put('pods', pod);
    later(state.stopMs, () => {
      for (const one of [...execs].filter(({ pod: name }) => name === pod.metadata.name)) killTree(one.child);
      drop('pods', pod.metadata.name);
      reconcile();
    });
  };
  const startPod = (name: string, template: Item['spec'], owner: object): void => {
    const pod: Item = {
      kind: 'Pod',
      metadata: metaOf(name, {
        labels: { ...template.metadata?.labels },
        annotations: { ...template.metadata?.annotations },
        ownerReferences: [owner],
      }),
      spec: template.spec,
      status: { phase: 'Pending', conditions: [] },
    };
    put('pods', pod);
    later(state.startMs, () => {
      if (pod.metadata.deletionTimestamp !== undefined) return;
      const running = (one: { name: string }) => ({ name: one.name, containerID: newUid(), state: { running: {} } });
      pod.status = {
        ...{ phase: 'Running', startTime: new Date().toISOString() },
        conditions: [{ type: 'Ready', status: 'True' }],
        containerStatuses: pod.spec.containers.map(running),
      };
      put('pods', pod);
      reconcile();
    });
  };
  /** What the cluster's controllers do, each time that something changed. */
  const reconcile = (): void => {
    for (const what of ['deployments', 'statefulsets']) {
      for (const controller of all(what)) {
        const { name, uid } = controller.metadata;
        const replicaSet = all('replicasets').find((one) => one.metadata.name === `${name}-1`);
        const owner =
          what === 'statefulsets'
            ? { kind: 'StatefulSet', name, uid, controller: true }
            : { kind: 'ReplicaSet', name: `${name}-1`, uid: replicaSet?.metadata.uid, controller: true };
        const isMine = (pod: Item) =>
          (pod.metadata.ownerReferences as { uid: string }[] | undefined)?.[0]?.uid === owner.uid;
        const pods = all('pods').filter(isMine);
        const alive = pods.filter((pod) => pod.metadata.deletionTimestamp === undefined);
        const wanted: number = controller.spec.replicas;
        // A StatefulSet has one pod end or begin after the other.
        const isBusy = pods.some(
          (pod) => pod.metadata.deletionTimestamp !== undefined || pod.status.phase !== 'Running',
        );
        const isOrdered = what === 'statefulsets';
        const most = !isOrdered ? Number.POSITIVE_INFINITY : isBusy ? 0 : 1;
        for (const pod of alive.toReversed().slice(0, Math.min(most, Math.max(0, alive.length - wanted)))) endPod(pod);
        for (let at = alive.length; at < Math.min(wanted, alive.length + most); at += 1) {
          const free = Array.from({ length: wanted }, (_, index) => `${name}-${index}`).find(
            (one) => !items.has(keyOf('pods', one)),
          );
          if (what === 'deployments') startPod(`${name}-1-${newUid()}`, controller.spec.template, owner);
          else if (free !== undefined) startPod(free, controller.spec.template, owner);
        }
        const ready = alive.slice(0, wanted).filter((pod) => pod.status.phase === 'Running').length;
        const { generation: observedGeneration } = controller.metadata;
        const status = { replicas: Math.min(alive.length, wanted), readyReplicas: ready, observedGeneration };
        if (JSON.stringify(status) === JSON.stringify(controller.status)) continue;
        controller.status = status;
        put(what, controller);
      }
    }
  };

  const addController = (
    what: 'deployments' | 'statefulsets',
    name: string,
    options: { replicas?: number; annotations?: Record<string, string>; labels?: Record<string, string> } = {},
  ) => {
    const { replicas = 1, annotations = {}, labels = {} } = options;
    const controller: Item = {
      ...(KINDS[what] as { kind: string }),
      metadata: metaOf(name, { generation: 1 }),
      spec: {
        ...{ replicas, progressDeadlineSeconds: 60, selector: { matchLabels: { app: name } } },
        template: {
          metadata: { labels: { app: name, ...labels }, annotations },
          spec: { containers: [{ name: 'main' }, { name: 'proxy' }], terminationGracePeriodSeconds: 5 },
        },
      },
      status: {},
    };
    put(what, controller);
    if (what === 'deployments') {
      const owner = { kind: 'Deployment', name, uid: controller.metadata.uid, controller: true };
      const metadata = metaOf(`${name}-1`, {
        ownerReferences: [owner],
        labels: controller.spec.template.metadata.labels,
      });
      put('replicasets', { kind: 'ReplicaSet', metadata });
    }
    reconcile();
    return controller;
  };

  const scale = (what: string, name: string, replicas: number): void => {
    const controller = items.get(keyOf(what, name));
    if (controller === undefined || controller.spec.replicas === replicas) return;
    controller.spec.replicas = replicas;
    controller.metadata.generation = (controller.metadata.generation ?? 0) + 1;
    put(what, controller);
    reconcile();
  };

  const fail = (status: number, reason: string, message: string): Fault => ({
    status,
    body: { kind: 'Status', status: 'Failure', reason, message, code: status },
  });
  const scaleOf = ({ metadata, spec, status }: Item) => ({
    ...{ kind: 'Scale', apiVersion: 'autoscaling/v1', metadata, spec: { replicas: spec.replicas } },
    status: { replicas: status.replicas ?? 0, selector: `app=${metadata.name}` },
  });

  /** Carries a request out; resolves to what is answered. */
  const carryOut = ({ method, path, query, body }: Asked): Fault | Watch => {
    const [, what = '', name, sub] =
      new RegExp(`^/(?:api/v1|apis/[^/]+/v\\d)/namespaces/${NAMESPACE}/(\\w+)(?:/([^/]+))?(?:/(\\w+))?$`).exec(path) ??
      [];
    if (KINDS[what] === undefined) return fail(404, 'NotFound', `no such path ${path}`);
    if (name === undefined && method === 'GET') {
      if (query.get('watch') === 'true') return { watch: what, from: query.get('resourceVersion') };
      const found = all(what)
        .filter(({ metadata }) => isSelected(metadata.labels ?? {}, query.get('labelSelector') ?? ''))
        .toSorted((one, other) => (one.metadata.name < other.metadata.name ? -1 : 1)); // as etcd has them
      const from = Number(query.get('continue') ?? 0);
      const end = from + Math.min(Number(query.get('limit') ?? 500), state.pageSize);
      const metadata = { resourceVersion: String(version), ...(end < found.length ? { continue: String(end) } : {}) };
      // What a list has does not say its kind.
      const listed = found.slice(from, end).map(({ kind: _, apiVersion: __, ...item }) => item);
      return { status: 200, body: { kind: `${KINDS[what]?.kind}List`, metadata, items: listed } };
    }
    if (name === undefined && method === 'POST') {
      const fault = faultOf(what, undefined, undefined, body);
      if (fault !== undefined) return fault;
      const item = body as Item;
      if (items.has(keyOf(what, item.metadata.name))) return fail(409, 'AlreadyExists', 'already exists');
      const made: Item = { ...item, metadata: { ...metaOf(item.metadata.name), ...item.metadata } };
      put(what, made);
      return { status: 201, body: made };
    }
    const item = items.get(keyOf(what, name ?? ''));
    if (item === undefined) return fail(404, 'NotFound', `${what} "${name}" not found`);
    if (method === 'GET') return { status: 200, body: sub === 'scale' ? scaleOf(item) : { ...KINDS[what], ...item } };
    const fault = method === 'PUT' ? faultOf(what, name, sub, body) : undefined;
    if (fault !== undefined) return fault;
    const given = body as Partial<Item> & { preconditions?: { uid?: string; resourceVersion?: string } };
    const wanted: { uid?: string; resourceVersion?: string } | undefined =
      method === 'DELETE' ? given.preconditions : given.metadata;
    const isOther = wanted?.resourceVersion !== undefined && wanted.resourceVersion !== item.metadata.resourceVersion;
    if (isOther || (wanted?.uid !== undefined && wanted.uid !== item.metadata.uid)) {
      return fail(409, 'Conflict', 'the object has been modified');
    }
    if (method === 'DELETE') {
      drop(what, name ?? '');
      return { status: 200, body: { kind: 'Status', status: 'Success' } };
    }
    if (method === 'PUT' && sub === 'scale') {
      scale(what, name ?? '', given.spec.replicas);
      return { status: 200, body: scaleOf(item) };
    }
    if (method !== 'PUT') return fail(405, 'MethodNotAllowed', method);
    const changed = { ...item, ...given, metadata: { ...item.metadata, ...given.metadata } } as Item;
    put(what, changed);
    return { status: 200, body: changed };
  };

  const server = createServer((request, response) => void answer(request, response));
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => undefined);
    if (state.isDown) socket.destroy();
  });

  const askedOf = async (request: IncomingMessage): Promise<Asked> => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://api');
    const chunks: Buffer[] = [];
    if (request.method !== 'GET') for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    const one = {
      ...{
        method: request.method ?? '',
        path: pathname,
        query: searchParams,
        body: text === '' ? undefined : JSON.parse(text),
      },
      token: (request.headers.authorization ?? '').replace(/^Bearer /, ''),
    };
    asked.push(one);
    return one;
  };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const one = await askedOf(request);
    const isKnown = state.tokens.size === 0 || state.tokens.has(one.token);
    const instead = isKnown ? state.script?.(one, 'before') : fail(401, 'Unauthorized', 'Unauthorized');
    const result = instead ?? carryOut(one);
    const after = instead === undefined ? state.script?.(one, 'after') : undefined;
    const told = after ?? result;
    if (told === 'cut') return void request.socket.destroy();
    if ('watch' in told) return watch(told, response);
    response.writeHead(told.status, { 'Content-Type': 'application/json', ...told.headers });
    response.end(JSON.stringify(told.body ?? {}));
  }

  function watch({ watch: what, from }: Watch, response: ServerResponse): void {
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.flushHeaders();
    if (!from) {
      // A real server asks its cache, which is behind for ever where there is none of a kind.
      const message = `Timeout: Too large resource version: ${version}, current: 1`;
      const object = { kind: 'Status', status: 'Failure', reason: 'Timeout', message, code: 504 };
      return void response.end(`${JSON.stringify({ type: 'ERROR', object })}\n`);
    }
    const watcher = { what, response };
    watchers.add(watcher);
    response.on('close', () => watchers.delete(watcher));
    for (const event of events) if (event.what === what && event.version > Number(from)) response.write(event.line);
  }

  const upgrader = new WebSocketServer({
    noServer: true,
    handleProtocols: (offered) => state.protocols.find((one) => offered.has(one)) ?? false,
  });
  server.on('upgrade', (request, socket: Socket, head) => {
    void askedOf(request).then((one) => {
      const refuse = (fault: Fault): void => {
        if (fault === 'cut') return void socket.destroy();
        const text = JSON.stringify(fault.body ?? {});
        socket.end(`HTTP/1.1 ${fault.status} X\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
      };
      const fault = state.script?.(one, 'before');
      if (fault !== undefined) return refuse(fault);
      if (state.tokens.size > 0 && !state.tokens.has(one.token))
        return refuse(fail(401, 'Unauthorized', 'Unauthorized'));
      const name = one.path.split('/').at(-2) ?? '';
      const pod = items.get(keyOf('pods', name));
      if (pod === undefined) return refuse(fail(404, 'NotFound', `pods "${name}" not found`));
      if (pod.status.phase !== 'Running') return refuse(fail(400, 'BadRequest', 'container not found'));
      upgrader.handleUpgrade(request, socket, head, (ws) => runExec(ws, name, one.query));
    });
  });

  function runExec(socket: WebSocket, pod: string, query: URLSearchParams): void {
    const [program = '', ...args] = query.getAll('command');
    const env = { PATH: process.env.PATH };
    const isThere = state.programs?.includes(program) ?? true;
    const child = spawn(isThere ? program : `/absent/${program}`, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env,
      detached: true,
    });
    const one = { pod, child, socket };
    execs.add(one);
    const send = (channel: number, bytes: Buffer): void => {
      if (socket.readyState === socket.OPEN) socket.send(Buffer.concat([Buffer.of(channel), bytes]));
    };
    for (const channel of [1, 2]) send(channel, Buffer.alloc(0)); // as real servers do
    if (query.get('stdin') !== 'true') child.stdin.end();
    child.stdin.on('error', () => undefined);
    socket.on('message', (data: Buffer) => {
      if (data[0] === 0) child.stdin.write(data.subarray(1));
      if (data[0] === 255 && data[1] === 0 && socket.protocol.startsWith('v5')) child.stdin.end();
    });
    child.stdout.on('data', (bytes: Buffer) => send(1, bytes));
    child.stderr.on('data', (bytes: Buffer) => send(2, bytes));
    const finish = (status: object): void => {
      execs.delete(one);
      send(3, Buffer.from(JSON.stringify(status)));
      socket.close();
    };
    child.on('error', () =>
      finish({
        ...{ status: 'Failure', reason: 'InternalError', code: 500 },
        message: `error executing command in container: OCI runtime exec failed: exec failed: unable to start container process: exec: "${program}": executable file not found in $PATH: unknown`,
      }),
    );
    const tell = (code: number): void =>
      finish(
        code === 0
          ? { status: 'Success' }
          : {
              ...{ status: 'Failure', reason: 'NonZeroExitCode', message: `command terminated with exit code ${code}` },
              details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
            },
      );
    const isSpent = new Promise((done) => child.once('close', done));
    child.on('exit', (code, name) => {
      // Output that is still in the pipes comes first, also that of children that keep them open: as of real ones.
      void isSpent.then(() => tell(name === null ? (code ?? 1) : 137));
    });
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const cutSockets = (): void => {
    for (const socket of sockets) socket.destroy();
  };

  return {
    url: `http://127.0.0.1:${port}`,
    namespace: NAMESPACE,
    state,
    asked,
    items,
    all,
    get: (what: string, name: string) => items.get(keyOf(what, name)),
    put,
    addController,
    scale,
    removeController(what: string, name: string): void {
      scale(what, name, 0);
      drop(what, name);
    },
    endPod: (name: string) => endPod(items.get(keyOf('pods', name)) as Item),
    /** The connections of all hooks, and not the hooks. */
    cutExecs(): void {
      for (const { socket } of execs) socket.terminate();
    },
    /** Every connection ends, and none is taken, until it is up again. */
    setDown(isDown: boolean): void {
      state.isDown = isDown;
      if (isDown) cutSockets();
    },
    /** An event for all that watch, as it stands in the answer: also half a line. */
    sayToWatchers(text: string): void {
      for (const { response } of watchers) response.write(text);
    },
    watching: () => watchers.size,
    async [Symbol.asyncDispose]() {
      for (const timer of timers) clearTimeout(timer);
      for (const { child } of execs) killTree(child);
      cutSockets();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export type ApiServer = Awaited<ReturnType<typeof openApiServer>>;

/** All of a container's process group, as far as it has not left that. */
function killTree({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // gone meanwhile
  }
}

function isSelected(labels: Record<string, string>, selector: string): boolean {
  return selector
    .split(',')
    .filter((part) => part !== '')
    .every((part) => {
      const [label = '', value] = part.split('=');
      return value === undefined ? label in labels : labels[label] === value;
    });
}
