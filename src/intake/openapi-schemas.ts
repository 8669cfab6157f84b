import { ERRORS } from '../core/errors.ts';
import { RUN_OUTCOMES } from '../core/result.ts';

const TEXT = { type: 'string' } as const;
const LINES = { type: 'array', items: TEXT } as const;
const TIME = { type: 'string', format: 'date-time' } as const;
const DURATION = { type: 'string', description: 'Such as 30s, 10m or 1h30m.' } as const;
const EXIT_CODE = { type: 'integer', minimum: 0, maximum: 255 } as const;

const ANSWER = { exitCode: EXIT_CODE, runId: TEXT, message: TEXT, notes: LINES } as const;

const RUN = objectOf(['id', 'job', 'client', 'operation', 'phase', 'openedAt', 'distrust'], {
  id: TEXT,
  job: TEXT,
  client: TEXT,
  operation: TEXT,
  phase: { enum: ['pre', 'open', 'post', 'kept', 'closed'] },
  openedAt: TIME,
  closedAt: TIME,
  outcome: { enum: RUN_OUTCOMES },
  status: { ...EXIT_CODE, description: "The exit code of the client's command." },
  distrust: { ...LINES, description: 'Why the backup cannot be trusted (exit code 65).' },
});

/** The shapes that the OpenAPI document speaks of, as JSON Schema. */
export const SCHEMAS = {
  Signal: {
    ...objectOf(['operation', 'state'], {
      version: { const: 1 },
      id: { ...TEXT, description: 'Random, made by the client; made for it if missing.' },
      leaseId: { ...TEXT, description: 'Names a lease of /v1/leases/{id} as the proof that the sender lives.' },
      operation: TEXT,
      state: { enum: ['pre', 'inspect', 'captured', 'started', 'post'] },
      job: { ...TEXT, default: 'default' },
      run: { ...TEXT, description: 'The run that is meant: the runId of the answer to its pre.' },
      params: { type: 'object', additionalProperties: TEXT },
      wait: { ...DURATION, default: '0s' },
      lease: {
        ...DURATION,
        description: 'held: the run lives as long as the sender. A duration: that long without a word.',
      },
      outcome: { enum: ['success', 'failure'], default: 'success' },
      status: EXIT_CODE,
      inspect: TEXT,
    }),
    additionalProperties: false,
  },
  Event: {
    oneOf: [
      eventOf('accepted', ['id'], { id: TEXT }),
      eventOf('output', ['stream'], {
        stream: { enum: ['out', 'err'] },
        text: { ...TEXT, description: 'What was printed, if it is UTF-8; else there is base64.' },
        base64: { ...TEXT, contentEncoding: 'base64' },
      }),
      eventOf('dropped', ['bytes'], { bytes: { type: 'integer', minimum: 1 } }),
      eventOf('answer', ['exitCode', 'notes'], ANSWER),
      eventOf('leased', [], {}),
      eventOf('abandoned', ['why'], { why: TEXT }),
    ],
  },
  Answer: objectOf(['exitCode', 'notes'], ANSWER),
  Run: RUN,
  Plan: objectOf(['operation', 'state', 'job', 'steps', 'notes'], {
    operation: TEXT,
    state: TEXT,
    job: TEXT,
    steps: {
      type: 'array',
      items: objectOf(['do', 'what', 'where'], {
        do: { enum: ['run', 'hold', 'release'] },
        what: TEXT,
        where: TEXT,
        why: TEXT,
      }),
    },
    notes: LINES,
  }),
  Status: objectOf(['version', 'engine', 'runs', 'holds'], {
    version: TEXT,
    since: TIME,
    engine: objectOf(['kind', 'reachable'], { kind: TEXT, reachable: { type: 'boolean' }, why: TEXT }),
    runs: { type: 'array', items: RUN },
    holds: {
      type: 'array',
      items: objectOf(['workload', 'kind', 'status', 'heldAt', 'runs'], {
        workload: TEXT,
        kind: { enum: ['stop', 'pause'] },
        status: { enum: ['asked', 'held', 'releasing', 'released'] },
        heldAt: TIME,
        runs: LINES,
        why: TEXT,
      }),
    },
  }),
  Release: {
    oneOf: [objectOf(['run'], { run: TEXT }), objectOf(['all'], { all: { const: true } })],
  },
  Health: objectOf(['ok', 'why'], { ok: { type: 'boolean' }, why: LINES }),
  Problem: objectOf(['type', 'title', 'status', 'detail', 'code', 'exitCode'], {
    type: { type: 'string', format: 'uri' },
    title: TEXT,
    status: { type: 'integer' },
    detail: TEXT,
    code: { enum: Object.keys(ERRORS) },
    exitCode: EXIT_CODE,
  }),
} as const;

function objectOf(required: readonly string[], properties: object): object {
  return { type: 'object', required, properties };
}

function eventOf(type: string, required: readonly string[], properties: object): object {
  return objectOf(['type', ...required], { type: { const: type }, ...properties });
}
