import type { Log } from '../core/ports.ts';
import type { Request } from '../core/request.ts';
import type { Views } from '../core/views.ts';
import type { Place } from './socket-listen.ts';
import { makeViewRoutes } from './socket-routes.ts';
import { openServer } from './socket-server.ts';

/** What the operator's socket needs. */
export type ControlOptions = Place & {
  readonly views: Views;
  /** For `plan`: without a client's limits. @throws OperationalError */
  readonly parse: (raw: unknown, client: string) => Request;
  readonly log: Log;
};

/** Who the operator's plans are made for, where a client's name is asked for. */
const OPERATOR = 'operator';

/**
 * Listens on the operator's socket, which no client has: `status`, `release`, and all that clients may look at.
 * @throws OperationalError `configuration`: the socket cannot be made
 */
export function openControl({ views, parse, ...options }: ControlOptions): Promise<AsyncDisposable> {
  const routes = makeViewRoutes({ views, parse, client: OPERATOR, who: 'operator' });
  return openServer({ ...options, title: 'Sidehook: the control socket', routes });
}
