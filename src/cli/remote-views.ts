import { OperationalError } from '../core/errors.ts';
import type { HealthView, PlanView, RunView, StatusView, Views } from '../core/views.ts';
import { answerOf } from '../intake/socket-wire.ts';
import { ask, nobodyThere, type Question, strangeAnswer } from './wire.ts';

/** Whether a daemon answers at this control socket. @throws OperationalError `refused`: it is not ours to ask */
export async function isUp(socketPath: string, signal: AbortSignal): Promise<boolean> {
  const reply = await ask(socketPath, { method: 'GET', path: '/healthz', signal }, 503);
  return !('away' in reply);
}

/**
 * The views of the daemon that listens on a control socket.
 * Each call throws OperationalError as the daemon answers it, `engine-unavailable` when it has gone.
 */
export function makeRemoteViews(socketPath: string): Views {
  const never = new AbortController().signal;

  async function get(
    question: Omit<Question, 'method'> & { readonly method?: 'POST' },
    alsoFine?: number,
  ): Promise<object> {
    const reply = await ask(socketPath, { method: 'GET', ...question }, alsoFine);
    if ('away' in reply) throw nobodyThere(socketPath, `it does not answer (${reply.away})`);
    if (typeof reply.document !== 'object' || reply.document === null) throw strangeAnswer(socketPath, 'not an object');
    return reply.document;
  }

  return {
    async runs() {
      return ((await get({ path: '/v1/runs', signal: never })) as { readonly runs: readonly RunView[] }).runs;
    },
    async run(id) {
      try {
        return (await get({ path: `/v1/runs/${encodeURIComponent(id)}`, signal: never })) as RunView;
      } catch (error) {
        if (error instanceof OperationalError && error.code === 'invalid-request') return undefined;
        throw error;
      }
    },
    async plan({ operation, state, job }, signal) {
      return (await get({ path: `/v1/plan?${new URLSearchParams({ operation, state, job })}`, signal })) as PlanView;
    },
    async status(signal) {
      return (await get({ path: '/v1/status', signal })) as StatusView;
    },
    async release(which, signal) {
      const body = 'runId' in which ? { run: which.runId } : which;
      const document = await get({ method: 'POST', path: '/v1/release', body, signal });
      try {
        return answerOf(document as Record<string, unknown>);
      } catch (error) {
        throw strangeAnswer(socketPath, error);
      }
    },
    async health(signal) {
      return (await get({ path: '/healthz', signal }, 503)) as HealthView;
    },
  };
}
