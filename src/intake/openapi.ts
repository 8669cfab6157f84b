import { SCHEMAS as schemas } from './openapi-schemas.ts';

/** What the document of one socket depends on. */
export type Served = {
  readonly title: string;
  readonly routes: readonly { readonly method: string; readonly path: string }[];
};

/** Makes the OpenAPI 3.1 document of a socket: all that it serves, and only that. */
export function makeOpenApi({ title, routes }: Served): object {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const { method, path } of routes) {
    const name = method.toLowerCase();
    const { [name]: operation, parameters } = (PATHS[path] ?? {}) as Record<string, unknown>;
    if (operation === undefined) throw new Error(`${method} ${path}: served, and not documented`);
    paths[path] = { ...(parameters === undefined ? {} : { parameters }), ...paths[path], [name]: operation };
  }
  return {
    openapi: '3.1.0',
    info: {
      title,
      version: '1',
      description:
        'HTTP/1.1 over a unix socket. Whoever can connect is who the socket is for: there is nothing to log in to. ' +
        'Refusals are problem documents (RFC 9457) whose exitCode is what the sidehook client would exit with.',
    },
    servers: [{ url: 'http://localhost', description: 'The host name is not looked at.' }],
    paths,
    components: { schemas },
  };
}

const PROBLEM = {
  description: 'A problem document; exitCode says what a script is to make of it.',
  content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
};

const PATHS: Readonly<Record<string, object>> = {
  '/v1/signals': {
    post: {
      operationId: 'signal',
      summary: 'Sends a signal, and streams what comes of it.',
      description:
        'The first line is `accepted` once the sidecar has taken the signal up; until then nothing is sent, and hanging ' +
        'up withdraws it. Output comes as it is printed, the last line is `answer`. The connection proves that the ' +
        'sender lives. The same id again gets the same answer, so a broken connection is mended by asking again. A ' +
        'client that reads nothing holds the hooks up for 5 minutes; then output is dropped, which `dropped` tells.',
      requestBody: {
        required: true,
        content: { 'application/json': { schema: { $ref: '#/components/schemas/Signal' } } },
      },
      responses: { 200: streamOf('Lines of JSON; the last one is the answer.'), default: PROBLEM },
    },
  },
  '/v1/leases/{id}': {
    parameters: [idIn('A random id that the client made: the `leaseId` of its signals.')],
    get: {
      operationId: 'holdLease',
      summary: 'Stays open, and is the lease of every run that was opened with this leaseId.',
      description:
        'Open it before the first signal. Its end means that the client is dead. After a restart of the sidecar, come ' +
        'back within lease.ttl. Blank lines are signs of life; `abandoned` says that the run was given up.',
      responses: { 200: streamOf('`leased`, then silence.'), default: PROBLEM },
    },
  },
  '/v1/runs': {
    get: {
      operationId: 'listRuns',
      summary: "Lists runs, the newest first: on a client's socket its own alone.",
      responses: {
        200: jsonOf('Runs.', { type: 'object', required: ['runs'], properties: { runs: listOf('Run') } }),
        default: PROBLEM,
      },
    },
  },
  '/v1/runs/{id}': {
    parameters: [idIn('The id of a run.')],
    get: {
      operationId: 'showRun',
      summary: 'Shows one run.',
      responses: { 200: jsonOf('The run.', refTo('Run')), default: PROBLEM },
    },
  },
  '/v1/runs/{id}/lease': {
    parameters: [idIn('The id of a run that was opened through this socket.')],
    get: {
      operationId: 'holdRun',
      summary: 'Stays open, and is the lease of this run.',
      description: 'For a `pre` with lease `held` and no leaseId: it must come within lease.ttl of the answer.',
      responses: { 200: streamOf('`leased`, then silence.'), default: PROBLEM },
    },
  },
  '/v1/plan': {
    get: {
      operationId: 'plan',
      summary: 'Shows what a signal would lead to, and does nothing.',
      parameters: [
        queryOf('operation', { type: 'string' }, true),
        queryOf('state', { enum: ['pre', 'inspect', 'captured', 'post'], default: 'pre' }),
        queryOf('job', { type: 'string', default: 'default' }),
      ],
      responses: { 200: jsonOf('The plan.', refTo('Plan')), default: PROBLEM },
    },
  },
  '/v1/status': {
    get: {
      operationId: 'status',
      summary: 'Shows what goes on, and what is held.',
      responses: { 200: jsonOf('Now.', refTo('Status')), default: PROBLEM },
    },
  },
  '/v1/release': {
    post: {
      operationId: 'release',
      summary: 'Releases what one run, or every run, holds, also after a failed restore.',
      requestBody: { required: true, content: { 'application/json': { schema: refTo('Release') } } },
      responses: { 200: jsonOf('What came of it.', refTo('Answer')), default: PROBLEM },
    },
  },
  '/healthz': {
    get: {
      operationId: 'health',
      summary: 'Says whether the sidecar does its work.',
      responses: {
        200: jsonOf('It does.', refTo('Health')),
        503: jsonOf('It does not, and why.', refTo('Health')),
        default: PROBLEM,
      },
    },
  },
  '/openapi.json': {
    get: {
      operationId: 'openapi',
      summary: 'This document.',
      responses: { 200: jsonOf('OpenAPI 3.1.', { type: 'object' }), default: PROBLEM },
    },
  },
};

function refTo(name: keyof typeof schemas): object {
  return { $ref: `#/components/schemas/${name}` };
}

function listOf(name: keyof typeof schemas): object {
  return { type: 'array', items: refTo(name) };
}

function jsonOf(description: string, schema: object): object {
  return { description, content: { 'application/json': { schema } } };
}

function streamOf(description: string): object {
  return { description, content: { 'application/x-ndjson': { schema: refTo('Event') } } };
}

function idIn(description: string): object {
  return {
    name: 'id',
    in: 'path',
    required: true,
    description,
    schema: { type: 'string', pattern: '^[a-zA-Z0-9][A-Za-z0-9_.-]{0,79}$' },
  };
}

function queryOf(name: string, schema: object, required?: true): object {
  return { name, in: 'query', ...(required && { required }), schema };
}
