/** Runs one job at a time, and of those that wait only the newest: a slider asks more often than an engine answers. */

export class Latest {
  private waiting: (() => Promise<void>) | null = null;
  private running = false;

  /** Runs `job` now, or when the running one has ended, unless a newer one comes. A job handles its own errors. */
  ask(job: () => Promise<void>): void {
    this.waiting = job;
    if (!this.running) void this.run();
  }

  private async run(): Promise<void> {
    this.running = true;
    try {
      while (this.waiting) {
        const job = this.waiting;
        this.waiting = null;
        await job();
      }
    } finally {
      this.running = false;
    }
  }
}
