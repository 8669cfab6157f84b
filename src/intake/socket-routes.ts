import { randomUUID } from 'node:crypto';
import type { Request } from '../core/request.ts';
import type { RunView, Views } from '../core/views.ts';
import { refusal } from './socket-problem.ts';
import { type Route, sendJson } from './socket-server.ts';

/** What the routes that only look need. */
export type ViewOptions = {
  readonly views: Views;
  readonly parse: (raw: unknown, client: string) => Request;
  readonly client: string;
  /** A client sees its own runs alone, and releases nothing. */
  readonly who: 'client' | 'operator';
};

/** The routes that look on, for a client; for the operator also those that show everything, and release. */
export function makeViewRoutes(options: ViewOptions): Route[] {
  const { views, parse, client, who } = options;
  const isVisible = (run: RunView): boolean => who === 'operator' || run.client === client;
  return [
    {
      method: 'GET',
      path: '/v1/runs',
      async respond({ response }) {
        sendJson(response, 200, { runs: (await views.runs()).filter(isVisible).map(shown) });
      },
    },
    {
      method: 'GET',
      path: '/v1/runs/{id}',
      async respond({ path, response }) {
        const run = await views.run(path.id ?? '');
        if (run === undefined || !isVisible(run)) throw refusal(404, `run ${path.id}: no such run`);
        sendJson(response, 200, shown(run));
      },
    },
    {
      method: 'GET',
      path: '/v1/plan',
      query: ['operation', 'state', 'job'],
      async respond({ query, response, signal }) {
        const asked = parse({ version: 1, id: randomUUID(), state: 'pre', ...query }, client);
        sendJson(response, 200, await views.plan(asked, signal));
      },
    },
    {
      method: 'GET',
      path: '/healthz',
      async respond({ response, signal }) {
        const health = await views.health(signal);
        sendJson(response, health.ok ? 200 : 503, health);
      },
    },
    ...(who === 'operator' ? operatorRoutes(views) : []),
  ];
}

function operatorRoutes(views: Views): Route[] {
  return [
    {
      method: 'GET',
      path: '/v1/status',
      async respond({ response, signal }) {
        const status = await views.status(signal);
        sendJson(response, 200, { ...status, runs: status.runs.map(shown) });
      },
    },
    {
      method: 'POST',
      path: '/v1/release',
      async respond({ body, response, closing }) {
        const which = parseRelease(await body());
        // Whoever asked may go: what was begun is released all the same.
        sendJson(response, 200, await views.release(which, closing));
      },
    },
  ];
}

/** @throws OperationalError `invalid-request` */
function parseRelease(raw: unknown): { readonly runId: string } | { readonly all: true } {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) throw refusal(422, 'body: expected an object');
  const { run, all, ...rest } = raw as Record<string, unknown>;
  const [stray] = Object.keys(rest);
  if (stray !== undefined) throw refusal(422, `${stray.slice(0, 80)}: no such field; known are run, all`);
  if (all === true && run === undefined) return { all: true };
  if (all === undefined && typeof run === 'string' && /^[a-zA-Z0-9][\w.-]{0,79}$/.test(run)) return { runId: run };
  throw refusal(422, 'release: expected either run, the id of a run, or all: true');
}

/** Where a lease is found again is nobody's business but ours. */
function shown({ leaseRef: _, ...run }: RunView): Omit<RunView, 'leaseRef'> {
  return run;
}
