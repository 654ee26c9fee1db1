# 6 epochs of the schedule for small data sets, for fine-tuning; evaluated at the end
_base_ = './schedule_small.py'
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=max_epochs, T_max=max_epochs)
