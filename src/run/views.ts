import { OperationalError } from '../core/errors.ts';
import { makePlan } from '../core/plan.ts';
import { viewPlan } from '../core/plan-view.ts';
import type { RunRecord } from '../core/record.ts';
import type { RunView, Views } from '../core/views.ts';
import { releaseNow } from './control.ts';
import type { Shared } from './shared.ts';
import { survey } from './survey.ts';

/** How long a look at the engine may take, for people who wait for it. */
const LOOK_MS = 5000;
const LAST_RUNS = 50;

/** What people and clients may see and do, over the running parts. `since` is unset where there is no daemon. */
export function makeViews(shared: Shared, { version, since }: { version: string; since?: string }): Views {
  const { tools } = shared;
  const { journal, driver, clock } = tools;
  const reach = async (signal: AbortSignal): Promise<string | undefined> => {
    try {
      await driver.look([], AbortSignal.any([signal, clock.deadline(LOOK_MS)]));
      return undefined;
    } catch (error) {
      signal.throwIfAborted();
      return error instanceof Error ? error.message : String(error);
    }
  };
  return {
    runs: async () => {
      const live = journal.runs('live').map(viewRun);
      const closed = journal.runs('all').filter(({ phase }) => phase === 'closed');
      return [...live, ...closed.slice(0, LAST_RUNS).map(viewRun)];
    },
    run: async (id) => {
      const run = journal.run(id);
      return run === undefined ? undefined : viewRun(run);
    },
    async plan({ operation, state, job }, signal) {
      if (state === 'started')
        throw new OperationalError('invalid-request', 'state: expected pre, inspect or post, got started');
      const situation = await survey(tools, signal);
      return viewPlan(makePlan({ operation, job }, situation), { operation, state, job });
    },
    async status(signal) {
      const why = await reach(signal);
      return {
        version,
        ...(since === undefined ? {} : { since }),
        engine: { kind: driver.engine, reachable: why === undefined, ...(why === undefined ? {} : { why }) },
        runs: journal.runs('live').map(viewRun),
        holds: journal.holds().map(({ name, kind, status, heldAt, runs, trouble }) => ({
          ...{ workload: name, kind, status, heldAt, runs },
          ...(trouble === undefined ? {} : { why: trouble }),
        })),
      };
    },
    release: (which) => releaseNow(which, shared),
    async health(signal) {
      const why = await reach(signal);
      return { ok: why === undefined, why: why === undefined ? [] : [why] };
    },
  };
}

function viewRun(run: RunRecord): RunView {
  const { id, job, client, operation, phase, openedAt, closedAt, outcome, status, distrust, leaseRef } = run;
  return {
    ...{ id, job, client, operation, phase, openedAt, distrust, leaseRef },
    ...(closedAt === undefined ? {} : { closedAt }),
    ...(outcome === undefined ? {} : { outcome }),
    ...(status === undefined ? {} : { status }),
  };
}
